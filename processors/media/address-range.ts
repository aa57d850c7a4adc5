import ipaddr from 'ipaddr.js'

/** 2000::/3, the only IPv6 addresses in use on the internet. Source: IANA, Internet Protocol Version 6 Address Space. */
const GLOBAL_V6 = ipaddr.parseCIDR('2000::/3') as [ipaddr.IPv6, number]

/**
 * Whether an IP address belongs to a host on the internet. Loopback, private, link-local, multicast, reserved, documentation and
 * benchmark addresses do not, nor do IPv6 addresses that carry an IPv4 address (mapped, NAT64, 6to4, Teredo).
 */
export const isGlobalAddress = (address: string): boolean => {
  if (!ipaddr.isValid(address)) return false
  const parsed = ipaddr.parse(address)
  if (parsed.range() !== 'unicast') return false
  return parsed.kind() === 'ipv4' || (parsed as ipaddr.IPv6).match(GLOBAL_V6)
}
