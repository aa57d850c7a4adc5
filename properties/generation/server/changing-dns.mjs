// Imported by every thread of a test's model: names below example.test have another address of the private network at each look-up.
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'

const { lookup } = dns
let calls = 0
dns.lookup = (host, options, callback) => {
  if (!host.endsWith('.example.test')) return lookup(host, options, callback)
  const address = ['127.0.0.1', '10.0.0.1'][calls++ % 2]
  if (options.all) callback(null, [{ address, family: 4 }])
  else callback(null, address, 4)
}
syncBuiltinESMExports()
