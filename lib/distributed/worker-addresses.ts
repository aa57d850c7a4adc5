import { lookup } from 'node:dns/promises'
import { BlockList, createServer, isIPv4 } from 'node:net'
import { networkInterfaces } from 'node:os'
import * as E from 'fp-ts/lib/Either.js'
import { errorText, type Issue, type Issues, invalid, issue, whenValid } from '../error.js'

/** `host:port` with a name or an IPv4 address. TensorFlow's server listens on IPv4 only. */
const addressIssues = (address: string): readonly Issue[] => {
  const [, host, port] = /^([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):(\d{1,5})$/.exec(address) ?? []
  const message = `--workers: ${address || 'an empty entry'} is no address of a worker; expected host:port with a name or an IPv4 address, such as 10.0.0.1:4000`
  if (host === undefined || Number(port) < 1 || Number(port) > 65535) return [issue('WorkerAddress', message, { address })]
  return []
}

/** The addresses in `hostA:4000,hostB:4000`. Errors: each entry that is no address, or stands twice. */
export const parseWorkers = (text: string): E.Either<Issues, readonly string[]> => {
  const addresses = text.split(',').map((address) => address.trim())
  const twice = addresses.filter((address, i) => addresses.indexOf(address) < i)
  const repeated = twice.map((address) =>
    issue('WorkerAddress', `--workers: ${address} stands twice; each worker has its own port`)
  )
  return whenValid([...addresses.flatMap(addressIssues), ...repeated], () => addresses)
}

/** The rank in the text of an option, checked against the number of workers. */
export const parseRank = (text: string, size: number): E.Either<Issues, number> => {
  const message = `--rank: expected a number from 0 to ${size - 1}, one for each of the ${size} workers, got ${text}`
  return /^\d+$/.test(text) && Number(text) < size ? E.right(Number(text)) : invalid('WorkerRank', message, { rank: text })
}

/** IPv4 networks that are not globally reachable. Source: RFC 6890 and IANA's registry of special-purpose addresses. */
const privateAddresses = new BlockList()
for (const [network, prefix] of [
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24]
] as const)
  privateAddresses.addSubnet(network, prefix)

/** Whether an IPv4 address is one of a private network. */
export const isPrivateAddress = (ip: string): boolean => privateAddresses.check(ip)

/** Public IPv4 addresses of the network interfaces of this machine. */
const publicInterfaces = (interfaces = networkInterfaces()): readonly string[] =>
  Object.values(interfaces)
    .flatMap((all) => all ?? [])
    .filter(({ family, address }) => family === 'IPv4' && !isPrivateAddress(address))
    .map(({ address }) => address)

const resolve = async (address: string): Promise<E.Either<Issues, string>> => {
  const host = address.slice(0, address.lastIndexOf(':'))
  if (isIPv4(host)) return E.right(host)
  try {
    return E.right((await lookup(host, 4)).address)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? errorText(error)
    return invalid('WorkerAddress', `--workers: the host ${host} is not found (${code}); check the name, or give an IPv4 address`)
  }
}

/**
 * Addresses that the internet may reach, as issues: gRPC neither encrypts nor authenticates, and TensorFlow's server listens on every
 * IPv4 address of its machine. None where `trustNetwork` is set. Errors also: hosts that are not found.
 */
export const networkIssues = async (
  addresses: readonly string[],
  trustNetwork: boolean,
  interfaces = networkInterfaces()
): Promise<readonly Issue[]> => {
  const resolved = await Promise.all(addresses.map(resolve))
  const unknown = resolved.flatMap((result) => (E.isLeft(result) ? result.left : []))
  if (trustNetwork) return unknown
  const advice = 'gRPC has neither encryption nor passwords; use a private network or a tunnel, or add --trust-network'
  const outside = resolved.flatMap((result, i) =>
    E.isRight(result) && !isPrivateAddress(result.right)
      ? [issue('PublicAddress', `--workers: ${addresses[i]} is a public address, and ${advice}`, { address: addresses[i] })]
      : []
  )
  const here = publicInterfaces(interfaces).map((ip) =>
    issue(
      'PublicAddress',
      `--workers: this machine has the public address ${ip}, on which the worker would listen too, and ${advice}`
    )
  )
  return [...unknown, ...outside, ...here]
}

/** Free ports of this machine, in number `count`. */
export const freePorts = async (count: number): Promise<readonly number[]> => {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '0.0.0.0'))
  await Promise.all(servers.map((server) => new Promise((done) => server.once('listening', done))))
  const ports = servers.map((server) => (server.address() as { readonly port: number }).port)
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))))
  return ports
}
