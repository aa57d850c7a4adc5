import assert from 'node:assert/strict'
import fc from 'fast-check'
import { isGlobalAddress } from '../../../processors/media/address-range.js'

describe('address ranges', () => {
  it('only addresses of hosts on the internet are global', () => {
    for (const address of ['8.8.8.8', '1.1.1.1', '93.184.216.34', '2606:4700::1111', '2a00:1450:4001:81b::200e'])
      assert.ok(isGlobalAddress(address), address)
    for (const address of [
      ...[
        '0.0.0.0',
        '0.1.2.3',
        '10.0.0.1',
        '100.64.0.1',
        '127.0.0.1',
        '127.255.1.2',
        '169.254.169.254',
        '172.16.0.1',
        '172.31.255.255'
      ],
      ...['192.0.0.1', '192.0.2.1', '192.88.99.1', '192.168.1.1', '198.18.0.1', '198.19.255.255', '198.51.100.1', '203.0.113.1'],
      ...['224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255'],
      ...[
        '::',
        '::1',
        '::1.2.3.4',
        '::8.8.8.8',
        '::ffff:8.8.8.8',
        '::ffff:127.0.0.1',
        '64:ff9b::8.8.8.8',
        '64:ff9b:1::1',
        '100::1'
      ],
      ...['2001::1', '2001:db8::1', '2002:7f00:1::', '2002:808:808::1', '3fff::1', '4000::1', '5f00::1'],
      ...['fc00::1', 'fd12::1', 'fe80::1', 'fe80::1%eth0', 'fec0::1', 'ff02::1', '', 'localhost', '127.1']
    ])
      assert.ok(!isGlobalAddress(address), address)
  })

  it('no IPv6 address outside 2000::/3 is global, and no mapped address', () => {
    const group = fc.integer({ min: 0, max: 0xffff })
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
        fc.pre(groups[0]! >> 13 !== 1)
        assert.ok(!isGlobalAddress(groups.map((n) => n.toString(16)).join(':')))
      })
    )
    fc.assert(fc.property(fc.ipV4(), (address) => assert.ok(!isGlobalAddress(`::ffff:${address}`))))
  })
})
