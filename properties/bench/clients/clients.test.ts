import assert from 'node:assert/strict'
import fc from 'fast-check'
import { serve } from '../../../generation/server/index.js'
import { imageUrl } from '../../generation/server/test-server.js'
import { loadTable, measureResponses, percentile, responseLine, runLoad } from './clients.js'

describe('load generator', () => {
  it('a percentile is a value that the share of values does not exceed, and no smaller value is', () =>
    fc.assert(
      fc.property(fc.array(fc.nat(9), { minLength: 1 }), fc.double({ min: 0.01, max: 1, noNaN: true }), (values, share) => {
        const value = percentile(values, share)
        assert.ok(values.includes(value))
        assert.ok(values.filter((x) => x <= value).length >= share * values.length)
        assert.ok(values.filter((x) => x < value).length < share * values.length)
      })
    ))

  it('counts every token of every client, with and without images', async () => {
    const caches = { prefixCacheBytes: 0, featureCacheBytes: 0 }
    const server = await serve({ port: 0, maxBatch: 3, logLevel: 'silent', ...caches })
    const { engine } = server
    try {
      const load = { clients: 3, requestsPerClient: 2, promptTokens: 9, images: 0, newTokens: 5 }
      const text = await runLoad(engine, load)
      const images = await runLoad(engine, { ...load, clients: 1, images: 2 })
      assert.deepEqual([text.requests, text.newTokens, images.requests, images.newTokens], [6, 30, 2, 10])
      assert.ok(text.meanBatch > 1 && text.meanBatch <= 3, `${text.meanBatch}`)
      assert.equal(images.meanBatch, 1)
      const { tokens } = engine.stats()
      assert.equal(tokens.image, 2 * 2 * 16)
      const [head, first, second] = loadTable([images, text]).split('\n')
      assert.equal(new Set([head!.length, first!.length, second!.length]).size, 1)
      assert.match(first!, /1\.00 x$/)
      const times = await measureResponses(server, await imageUrl('shapes'))
      assert.ok(times.firstToken > 0 && times.health.p50 > 0 && times.abort > 0)
      assert.match(responseLine(times), /health [\d.]+ ms, at most [\d.]+ ms of \d+; an abort [\d.]+ ms/)
    } finally {
      await server.close()
    }
  })
})
