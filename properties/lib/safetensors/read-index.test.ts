import assert from 'node:assert/strict'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { type Issues, orThrow } from '../../../lib/error.js'
import { openCheckpointTensors } from '../../../lib/safetensors/read.js'
import { intoShards, parseSize, type TensorSource, writeCheckpointTensors } from '../../../lib/safetensors/write.js'
import { tensors } from '../../arbitraries/safetensors.js'

const shard = (i: number, n = 3) => `model-0000${i}-of-0000${n}.safetensors`
const index = 'model.safetensors.index.json'
const filled = (key: string, value: number): TensorSource => ({
  key,
  dtype: 'F32',
  shape: [4],
  bytes: () => new Uint8Array(new Float32Array(4).fill(value).buffer)
})
const [a, b, c] = [filled('a', 1), filled('b', 2), filled('c', 3)]

describe('safetensors of a folder', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'checkpoint-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  const sharded = () => orThrow(writeCheckpointTensors(folder, [a, b, c], { shardBytes: 16 }))
  const editIndex = async (edit: (map: Record<string, unknown>) => void) => {
    const json = JSON.parse(await readFile(join(folder, index), 'utf8'))
    edit(json.weight_map)
    await writeFile(join(folder, index), JSON.stringify(json))
  }
  /** `tag: key or file` of each error. */
  const issues = async (at = folder): Promise<readonly string[]> => {
    const result = await openCheckpointTensors(at)()
    assert.equal(result._tag, 'Left', 'expected errors')
    return (result as { left: Issues }).left.map(({ _tag, message, key, file }) => {
      assert.ok(message.includes(String(key ?? file)), message)
      return `${_tag}: ${key ?? String(file).replace(folder, '.')}`
    })
  }

  it('shards of any size restore every tensor, bit for bit, and have the names of Transformers', async () => {
    await fc.assert(
      fc.asyncProperty(tensors, fc.integer({ min: 1, max: 200 }), async (written, shardBytes) => {
        await rm(folder, { recursive: true }) // with earlier shards of these names in the folder, other names would be chosen
        await mkdir(folder)
        await orThrow(writeCheckpointTensors(folder, written, { shardBytes }))
        const shards = intoShards(written, shardBytes).length
        const names = Array.from({ length: shards }, (_, i) => shard(i + 1, shards))
        assert.deepEqual((await readdir(folder)).sort(), shards === 1 ? ['model.safetensors'] : [...names, index])
        const read = await orThrow(openCheckpointTensors(folder))
        assert.equal(read.entries.size, written.length)
        for (const { key, data } of written) assert.deepEqual(await read.readBytes(read.entries.get(key)!), data)
        await read.close()
      }),
      { numRuns: 40 }
    )
  })

  it('shards are filled in order; only a shard of a single tensor may exceed the size', () => {
    fc.assert(
      fc.property(tensors, fc.integer({ min: 1, max: 200 }), (written, shardBytes) => {
        const shards = intoShards(written, shardBytes)
        assert.deepEqual(shards.flat(), written)
        const size = (shard: readonly TensorSource[]) =>
          shard.reduce((n, { key }) => n + written.find((t) => t.key === key)!.data.length, 0)
        shards.forEach((shard, i) => {
          assert.ok(shard.filter((t) => size([t]) > 0).length <= 1 || size(shard) <= shardBytes)
          if (i > 0) assert.ok(size(shards[i - 1]!) + size(shard.slice(0, 1)) > shardBytes)
        })
      })
    )
  })

  it('sizes of shards are read as Transformers writes them', () => {
    assert.deepEqual(['5GB', '500 mb', '2GiB', '1.5KB', '7', '', '5XB', '-1GB', '0'].map(parseSize), [
      5e9,
      5e8,
      2 ** 31,
      1500,
      7,
      undefined,
      undefined,
      undefined,
      undefined
    ])
  })

  it('missing files are named in the error', async () => {
    assert.deepEqual(await issues(), ['WeightsMissing: .'])
    assert.deepEqual(await issues(join(folder, 'none')), ['FolderMissing: ./none'])
    await writeFile(join(folder, 'file'), '')
    assert.deepEqual(await issues(join(folder, 'file')), ['FolderMissing: ./file'])
  })

  it('two broken shards are both reported, with all other errors', async () => {
    await sharded()
    await truncate(join(folder, shard(1)), 20)
    await rm(join(folder, shard(2)))
    await editIndex((map) => {
      map.d = shard(3)
    })
    assert.deepEqual(await issues(), [`HeaderLength: ./${shard(1)}`, `FileMissing: ./${shard(2)}`, 'KeyNotInShard: d'])
  })

  it('a shard that is present but shorter names the tensors that it lost', async () => {
    await sharded()
    const { size } = await readFile(join(folder, shard(2))).then(({ length }) => ({ size: length }))
    await truncate(join(folder, shard(2)), size - 4)
    assert.deepEqual(await issues(), ['FileCutShort: b'])
  })

  it('index and shards must agree on every key', async () => {
    await sharded()
    await editIndex((map) => {
      map.a = shard(2)
      delete map.c
      map.e = shard(3)
    })
    assert.deepEqual(await issues(), ['KeyNotInShard: a', 'KeyNotInShard: e', 'KeyNotInIndex: c'])
  })

  it('a key in two shards is an error', async () => {
    await sharded()
    await copyFile(join(folder, shard(1)), join(folder, shard(3)))
    assert.deepEqual(await issues(), ['KeyNotInShard: c', 'DuplicateKey: a'])
  })

  it('an index may name only files in its own folder', async () => {
    await sharded()
    for (const name of ['../x.safetensors', '/etc/passwd', 'sub/x.safetensors', '..', '', 'a\\x.safetensors', 'C:\\x', 'x\u0000'])
      await editIndex((map) => {
        map.a = name
        map.b = 7
      }).then(async () => assert.deepEqual(await issues(), ['UnsafePath: a', 'IndexMalformed: b'], name))
  })

  it('a refused name does not hide other errors', async () => {
    await sharded()
    await editIndex((map) => {
      map.a = '../x.safetensors'
      delete map.b
    })
    await rm(join(folder, shard(3)))
    assert.deepEqual(await issues(), [`FileMissing: ./${shard(3)}`, 'UnsafePath: a'])
  })

  it('an index without a weight map is an error', async () => {
    await sharded()
    for (const text of ['', '[]', '{}', 'null', '{"weight_map": []}', '{"weight_map": "a"}', '{"weight_map'])
      await writeFile(join(folder, index), text).then(async () =>
        assert.deepEqual(await issues(), [`IndexMalformed: ./${index}`], text)
      )
  })

  it('saving over an earlier checkpoint removes its weights', async () => {
    await sharded()
    await orThrow(writeCheckpointTensors(folder, [a]))
    assert.deepEqual(await readdir(folder), ['model.safetensors'])
    await orThrow(writeCheckpointTensors(folder, [b, c], { shardBytes: 16 }))
    assert.deepEqual((await readdir(folder)).sort(), [shard(1, 2), shard(2, 2), index])
    const read = await orThrow(openCheckpointTensors(folder))
    assert.deepEqual([...(await read.readFloat32(read.entries.get('c')!))], [3, 3, 3, 3])
    await read.close()
  })
})
