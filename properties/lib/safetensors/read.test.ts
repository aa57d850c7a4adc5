import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { dtypeBytes } from '../../../lib/dtype.js'
import { InternVLError, type Issues, orThrow } from '../../../lib/error.js'
import { headerLength, parseHeader } from '../../../lib/safetensors/header.js'
import { openSafetensors, type TensorFiles } from '../../../lib/safetensors/read.js'
import { type TensorSource, writeSafetensors } from '../../../lib/safetensors/write.js'
import { fileOf, mutation, type Sample, tensors } from '../../arbitraries/safetensors.js'

const f32 = (begin: number, end: number, shape: readonly number[] = [(end - begin) / 4]) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end]
})
const zeros = (length: number) => new Uint8Array(length)
const headed = (header: unknown, dataBytes: number, claimed?: number | bigint) =>
  fileOf(JSON.stringify(header), zeros(dataBytes), claimed)
const ones = (key: string, length: number): TensorSource => ({
  key,
  dtype: 'F32',
  shape: [length],
  bytes: () => new Uint8Array(new Float32Array(length).fill(1).buffer)
})

describe('safetensors', () => {
  let folder: string
  let file: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'safetensors-'))
    file = join(folder, 'a.safetensors')
  })
  afterEach(() => rm(folder, { recursive: true }))

  const issuesOf = async (bytes: Uint8Array): Promise<Issues> => {
    await writeFile(file, bytes)
    const result = await openSafetensors(file)()
    assert.equal(result._tag, 'Left', 'expected errors')
    return (result as { left: Issues }).left
  }

  const checkSame = async (read: TensorFiles, written: readonly Sample[]) => {
    assert.deepEqual([...read.entries.keys()].sort(), written.map(({ key }) => key).sort())
    for (const { key, dtype, shape, data } of written) {
      const entry = read.entries.get(key)!
      assert.deepEqual([entry.dtype, entry.shape, entry.offset % dtypeBytes[dtype]], [dtype, shape, 0])
      if (data.length % 64 === 0) assert.equal(entry.offset % 64, 0)
      assert.deepEqual(await read.readBytes(entry), data)
      const half = data.length >> 1
      assert.deepEqual(await read.readBytes(entry, half), data.subarray(half))
    }
  }

  it('files round-trip bit for bit, and every tensor is aligned to its type, or to 64 bytes if its size is a multiple', async () => {
    const metadata = fc.dictionary(fc.string(), fc.string(), { maxKeys: 2 })
    await fc.assert(
      fc.asyncProperty(tensors, metadata, async (written, meta) => {
        await orThrow(writeSafetensors(file, written, meta))
        const read = await orThrow(openSafetensors(file))
        assert.deepEqual({ ...read.metadata }, { ...meta })
        await checkSame(read, written).finally(read.close)
      }),
      { numRuns: 60 }
    )
    assert.deepEqual(await readdir(folder), ['a.safetensors'], 'temporary files are gone')
  })

  it('the npm package of safetensors reads written files without metadata', async () => {
    interface NpmFile {
      readonly metadata: ReadonlyMap<string, { readonly dtype: string; readonly shape: readonly number[] }>
      readonly getTensor: (key: string) => Uint8Array
    }
    const { SafeTensor } = createRequire(import.meta.url)('safetensors') as { SafeTensor: new (file: Uint8Array) => NpmFile }
    await orThrow(writeSafetensors(file, [ones('a', 3), { ...ones('b', 1), shape: [1, 1] }]))
    const whole = await readFile(file)
    const length = Number(whole.readBigUInt64LE(0))
    const { __metadata__, ...tensors } = JSON.parse(whole.toString('utf8', 8, 8 + length))
    assert.deepEqual(__metadata__, { format: 'pt' })
    const npm = new SafeTensor(fileOf(JSON.stringify(tensors), whole.subarray(8 + length)))
    const read = await orThrow(openSafetensors(file))
    for (const [key, { dtype, shape }] of npm.metadata) {
      const entry = read.entries.get(key)!
      assert.deepEqual([entry.dtype, entry.shape], [dtype, shape])
      assert.deepEqual(await read.readBytes(entry), Uint8Array.from(npm.getTensor(key)))
    }
    await read.close()
  })

  const a = f32(0, 8)
  const broken: ReadonlyArray<readonly [what: string, bytes: Uint8Array, tags: readonly string[], names: string]> = [
    ['an empty file', zeros(0), ['FileCutShort'], ''],
    ['a file of 7 bytes', zeros(7), ['FileCutShort'], '7 bytes'],
    ['a header of length 0', zeros(64), ['HeaderLength'], 'of 0 bytes'],
    ['a header longer than the file', headed({ a }, 8, 1000), ['HeaderLength'], '1000'],
    ['an absurd length', headed({ a }, 8, 2n ** 64n - 1n), ['HeaderLength'], '18446744073709552000'],
    ['a header that is not JSON', fileOf('{"a": nonsense}'), ['HeaderNotJson'], ''],
    ['a header that is not UTF-8', Uint8Array.of(4, 0, 0, 0, 0, 0, 0, 0, 0x22, 0xff, 0xff, 0x22), ['HeaderNotJson'], ''],
    ['a header that is a list', fileOf('[1, 2]'), ['HeaderNotJson'], '[1,2]'],
    ['metadata that is no record of texts', headed({ __metadata__: { a: 1 } }, 0), ['MetadataMalformed'], '__metadata__'],
    ['a file cut short', headed({ a, b: f32(8, 16) }, 12), ['FileCutShort'], 'b first'],
    ['bytes left over', headed({ a }, 9), ['FileTooLong'], '1 bytes'],
    ['overlapping tensors', headed({ a, b: f32(4, 12) }, 12), ['TensorsOverlap'], 'tensor b overlaps tensor a by 4'],
    ['one tensor within another', headed({ a: f32(0, 12), b: f32(4, 8) }, 12), ['TensorsOverlap'], 'tensor b'],
    ['a hole', headed({ a, b: f32(12, 16) }, 16), ['TensorsApart'], '4 bytes between tensor a and tensor b'],
    ['an end before its beginning', headed({ a: { ...a, data_offsets: [8, 0] } }, 8), ['TensorOffsets'], 'tensor a'],
    ['offsets that are negative', headed({ a: { ...a, data_offsets: [-8, 0] } }, 8), ['TensorOffsets'], 'tensor a'],
    [
      'offsets beyond 2^53',
      fileOf('{"a":{"dtype":"U8","shape":[2],"data_offsets":[9007199254740992,9007199254740994]}}'),
      ['TensorOffsets'],
      'a'
    ],
    ['an unknown dtype', headed({ a: { ...a, dtype: 'Q4_K' } }, 8), ['UnknownDtype'], '"Q4_K"; known are F64, F32'],
    ['a shape that is not whole', headed({ a: { ...a, shape: [2.5] } }, 8), ['TensorMalformed'], 'tensor a'],
    [
      'a shape of another size',
      headed({ a: { ...a, shape: [3] } }, 8),
      ['TensorSize'],
      '[3] of F32 takes 12 bytes; the header gives it 8'
    ],
    ['a tensor that is no object', headed({ a: 5 }, 0), ['TensorMalformed'], 'tensor a'],
    [
      'a key listed twice',
      fileOf(`{"a":${JSON.stringify(a)},"\\u0061":${JSON.stringify(a)}}`, zeros(8)),
      ['DuplicateKey'],
      'lists a '
    ],
    ['two errors', headed({ a: { ...a, dtype: 'X' }, b: { ...a, shape: [9] } }, 8), ['UnknownDtype', 'TensorSize'], '']
  ]
  for (const [what, bytes, tags, names] of broken)
    it(`${what}: ${tags.join(' and ')}, with the file's name`, async () => {
      const issues = await issuesOf(bytes)
      assert.deepEqual(
        issues.map(({ _tag }) => _tag),
        tags
      )
      for (const { message } of issues) assert.ok(message.startsWith(`${file}: `) && message.includes(names), message)
    })

  it('a missing file and a folder are errors', async () => {
    for (const [path, tag] of [
      [join(folder, 'none'), 'FileMissing'],
      [folder, 'FileUnreadable']
    ] as const) {
      const result = await openSafetensors(path)()
      assert.ok(result._tag === 'Left' && result.left[0]._tag === tag && result.left[0].message.includes(path))
    }
  })

  const sound = headed(
    {
      __metadata__: { format: 'pt' },
      a: f32(0, 8),
      'b.c': f32(8, 32, [2, 3]),
      d: { dtype: 'BF16', shape: [0, 4], data_offsets: [32, 32] }
    },
    32
  )

  it('10,000 mutations of a header: always an error with a message, or tensors within the file', () => {
    const parse = (bytes: Uint8Array) =>
      E.Chain.chain(headerLength(file, bytes.subarray(0, 8), bytes.length), (length) =>
        parseHeader(file, bytes.subarray(8, 8 + length), bytes.length)
      )
    const outcomes = { Left: 0, Right: 0 }
    fc.assert(
      fc.property(mutation, (mutate) => {
        const bytes = mutate(sound)
        const result = parse(bytes)
        outcomes[result._tag]++
        if (result._tag === 'Left') for (const { _tag, message } of result.left) assert.ok(_tag && message.startsWith(file))
        else
          for (const { offset, bytes: n } of result.right.entries.values()) assert.ok(offset >= 8 && offset + n <= bytes.length)
      }),
      { numRuns: 10_000, seed: 4 }
    )
    assert.ok(outcomes.Left > 5000 && outcomes.Right > 100, JSON.stringify(outcomes))
  })

  it('mutated files: an error, or every tensor read whole', async () => {
    await fc.assert(
      fc.asyncProperty(mutation, async (mutate) => {
        writeFileSync(file, mutate(sound))
        const result = await openSafetensors(file)()
        if (result._tag === 'Left') return
        const { entries, readBytes, close } = result.right
        for (const entry of entries.values()) assert.equal((await readBytes(entry)).length, entry.bytes)
        await close()
      }),
      { numRuns: 500, seed: 5 }
    )
  })

  it('tensors beyond 2 and 4 GiB are read by range', async () => {
    const [far, further] = [2 ** 31 + 6, 2 ** 32 + 2 ** 20]
    const header = new TextEncoder().encode(
      JSON.stringify({
        low: { dtype: 'U8', shape: [far], data_offsets: [0, far] },
        middle: { dtype: 'BF16', shape: [3], data_offsets: [far, far + 6] },
        high: { dtype: 'U8', shape: [further], data_offsets: [far + 6, far + 6 + further] },
        last: f32(far + 6 + further, far + 6 + further + 4)
      })
    )
    const start = 8 + header.length
    const handle = await open(file, 'w')
    await handle.write(fileOf(new TextDecoder().decode(header)), 0, start, 0)
    await handle.write(Uint8Array.of(0x80, 0x3f, 0x00, 0x40, 0x40, 0x40), 0, 6, start + far)
    await handle.write(Uint8Array.of(7), 0, 1, start + far + 6 + further - 1)
    await handle.write(new Uint8Array(Float32Array.of(0.1).buffer), 0, 4, start + far + 6 + further) // sparse: the file takes a few blocks
    await handle.close()
    const read = await orThrow(openSafetensors(file))
    const at = (key: string) => read.entries.get(key)!
    assert.deepEqual([...(await read.readFloat32(at('middle')))], [1, 2, 3])
    assert.deepEqual([...(await read.readFloat32(at('last')))], [Math.fround(0.1)])
    assert.deepEqual([...(await read.readBytes(at('high'), further - 2))], [0, 7])
    await read.close()
  })

  it('a file that shrinks while open, and a range outside a tensor, are errors', async () => {
    await orThrow(writeSafetensors(file, [ones('a', 4)]))
    const read = await orThrow(openSafetensors(file))
    const entry = read.entries.get('a')!
    await assert.rejects(read.readBytes(entry, 0, 17), RangeError)
    await assert.rejects(read.readBytes(entry, -1), RangeError)
    await truncate(file, entry.offset + 4)
    await assert.rejects(
      read.readBytes(entry),
      (error: InternVLError) => error instanceof InternVLError && /tensor a/.test(error.message)
    )
    await read.close()
  })

  it('a failed write leaves the old file, and nothing else', async () => {
    await orThrow(writeSafetensors(file, [ones('a', 4)]))
    const before = await readFile(file)
    const failing = { ...ones('b', 4), bytes: () => Promise.reject(new Error('no data')) }
    await assert.rejects(orThrow(writeSafetensors(file, [ones('a', 9), failing])), /no data/)
    await assert.rejects(orThrow(writeSafetensors(file, [{ ...ones('a', 9), shape: [8] }])), RangeError)
    await assert.rejects(orThrow(writeSafetensors(file, [ones('a', 1), ones('a', 1)])), RangeError)
    await assert.rejects(orThrow(writeSafetensors(file, [ones('__metadata__', 1)])), RangeError)
    assert.deepEqual([await readdir(folder), await readFile(file)], [['a.safetensors'], before])
    const nowhere = await writeSafetensors(join(folder, 'none', 'a'), [])()
    assert.ok(nowhere._tag === 'Left' && nowhere.left[0]._tag === 'WriteFailed')
  })
})
