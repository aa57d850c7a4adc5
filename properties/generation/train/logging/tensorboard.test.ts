import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { crc32c, scalarEvent, tensorBoardLogger, tfRecord } from '../../../../generation/train/logging/tensorboard.js'

/** The records of an event file, with lengths and checksums verified. */
const recordsOf = (bytes: Uint8Array): readonly Uint8Array[] => {
  const records: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at, true))
    const data = bytes.slice(at + 12, at + 12 + length)
    assert.deepEqual(tfRecord(data), new Uint8Array(bytes.slice(at, at + 16 + length)))
    records.push(data)
    at += 16 + length
  }
  return records
}

describe('event files for TensorBoard', () => {
  it('checksums are CRC-32C', () => {
    // RFC 3720, B.4, and the catalogue's check value
    assert.equal(crc32c(new TextEncoder().encode('123456789')), 0xe3069283)
    assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa)
    assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43)
  })

  it('an event has the bytes that TensorFlow writes', () =>
    // tensorboard 2.21: Event(wall_time=1.5, step=300, summary=Summary(value=[Summary.Value(tag='a', simple_value=0.5)]))
    assert.equal(
      Buffer.from(scalarEvent(1.5, 300, { a: 0.5 })).toString('hex'),
      '09000000000000f83f10ac022a0a0a080a0161150000003f'
    ))

  it('a run is a file with one record for each step and each evaluation', () =>
    fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 5 }), fc.float({ noNaN: true }), async (steps, loss) => {
        const folder = await mkdtemp(join(tmpdir(), 'events-'))
        const logger = tensorBoardLogger(folder)
        logger.onTrainBegin!(0)
        for (let step = 1; step <= steps; step++)
          logger.onStepEnd!({ step, loss, gradNorm: 1, learningRate: 0.1, tokens: 5, seconds: 1 })
        logger.onEvaluate!(steps, { loss })
        const [name] = await readdir(folder)
        const records = recordsOf(await readFile(join(folder, name!)))
        assert.match(name!, /^events\.out\.tfevents\./)
        assert.equal(records.length, steps + 2)
        assert.ok(Buffer.from(records[0]!).includes('brain.Event:2') && Buffer.from(records.at(-1)!).includes('validation/loss'))
        await rm(folder, { recursive: true })
      }),
      { numRuns: 10 }
    ))
})
