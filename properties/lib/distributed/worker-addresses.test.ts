import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import type { NetworkInterfaceInfo } from 'node:os'
import * as E from 'fp-ts/lib/Either.js'
import { collectivesIssues, joinWorkers } from '../../../lib/distributed/join-workers.js'
import { meetWorkers } from '../../../lib/distributed/meet-workers.js'
import { freePorts, isPrivateAddress, networkIssues, parseRank, parseWorkers } from '../../../lib/distributed/worker-addresses.js'
import type { Issue } from '../../../lib/error.js'

const left = <A>(result: E.Either<readonly Issue[], A>): readonly string[] =>
  E.isLeft(result) ? result.left.map(({ message }) => message) : []
const interfaceOf = (address: string) => ({ eth0: [{ family: 'IPv4', address } as NetworkInterfaceInfo] })

describe('addresses of workers', () => {
  it('are read in order; each wrong or repeated entry is an error', () => {
    assert.deepEqual(parseWorkers('a.example:4000, 10.0.0.2:4001'), E.right(['a.example:4000', '10.0.0.2:4001']))
    assert.equal(left(parseWorkers('a:4000,b,c:0,d:70000,,[::1]:4000')).length, 5)
    assert.match(left(parseWorkers('a:4000,b:1,a:4000'))[0]!, /a:4000 stands twice/)
  })

  it('have ranks from 0 to their number', () => {
    assert.deepEqual(parseRank('1', 2), E.right(1))
    for (const text of ['2', '-1', '1.5', 'x', '']) assert.match(left(parseRank(text, 2))[0]!, /expected a number from 0 to 1/)
  })

  it('of private networks are used, public ones need --trust-network, on this machine too', async () => {
    const ips = ['10.1.2.3', '172.31.0.1', '192.168.9.9', '127.0.0.1', '100.64.0.1', '172.32.0.1', '8.8.8.8']
    assert.deepEqual(ips.map(isPrivateAddress), [true, true, true, true, true, false, false])
    const messages = async (address: string, local: string, trust = false) =>
      (await networkIssues([address], trust, interfaceOf(local))).map(({ message }) => message)
    assert.deepEqual(await messages('10.0.0.1:4000', '10.0.0.1'), [])
    assert.match((await messages('8.8.8.8:4000', '10.0.0.1'))[0]!, /8\.8\.8\.8:4000 is a public address.*--trust-network/)
    assert.match((await messages('10.0.0.1:4000', '8.8.4.4'))[0]!, /this machine has the public address 8\.8\.4\.4/)
    assert.deepEqual(await messages('8.8.8.8:4000', '8.8.4.4', true), [])
    assert.match((await messages('no-such-host.invalid:4000', '10.0.0.1', true))[0]!, /host no-such-host\.invalid is not found/)
  })
})

describe('meetWorkers', () => {
  it('names a port that is in use', async () => {
    const server = createServer().listen(0, '0.0.0.0')
    await new Promise((done) => server.once('listening', done))
    const { port } = server.address() as { readonly port: number }
    const met = await meetWorkers({ addresses: [`127.0.0.1:${port}`], rank: 0, timeoutSeconds: 1 })
    server.close()
    assert.match(left(met)[0]!, new RegExp(`127.0.0.1:${port}: the port is in use by another program; choose another`))
  })

  it('names the workers that did not come', async () => {
    const addresses = (await freePorts(3)).map((port) => `127.0.0.1:${port}`)
    const waiting: (readonly string[])[] = []
    const onWaiting = (missing: readonly string[]) => waiting.push(missing)
    const [first, second] = await Promise.all([
      meetWorkers({ addresses, rank: 0, timeoutSeconds: 1, onWaiting }),
      meetWorkers({ addresses, rank: 1, timeoutSeconds: 1.2 })
    ])
    assert.equal(left(first)[0], `worker 2 (${addresses[2]}) did not come within 1 s; start every worker with the same --workers, and check addresses and firewalls`) // biome-ignore format: one line
    assert.match(left(second)[0]!, /worker 2 /)
    assert.deepEqual(waiting.at(-1), [addresses[2]])
  })
})

describe('joinWorkers', () => {
  it('tells before training where the engine has no collective operations', async () => {
    assert.deepEqual(collectivesIssues(true), [])
    assert.match(collectivesIssues(false, 'darwin arm64')[0]!.message, /TensorFlow \(darwin arm64\) has no collective operations/)
    assert.match(collectivesIssues(undefined)[0]!.message, /native engine of this version; build it again with/)
    const joined = await joinWorkers({
      addresses: ['127.0.0.1:4000'],
      rank: 0,
      trustNetwork: true,
      env: { INTERNVL_ENGINE: 'wasm' }
    })()
    assert.match(left(joined)[0]!, /need the native engine, and INTERNVL_ENGINE is wasm/)
  })
})
