import assert from 'node:assert/strict'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bytesOf } from '../../../lib/dtype.js'
import { orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { convertModel } from '../../../models/checkpoint/convert-model.js'
import { loadModel } from '../../../models/checkpoint/load-model.js'
import { openCheckpoint } from '../../../models/checkpoint/open-checkpoint.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import { inFolder, modelJson, readJson, smallModel, stored, writeFolder } from '../folders.js'

const messagesOf = async (dir: string): Promise<readonly string[]> => {
  const result = await loadModel(dir)()
  return result._tag === 'Left' ? result.left.map(({ message }) => message) : ['loaded']
}

describe('kinds of folders that are no checkpoint', () => {
  it('pointers of git-lfs and pickles are reported as such, with the command that fixes the folder', () =>
    inFolder(async (folder) => {
      const [lfs, pickle, none] = ['lfs', 'pickle', 'none'].map((name) => join(folder, name)) as [string, string, string]
      for (const dir of [lfs, pickle, none]) {
        await mkdir(dir)
        await writeFile(join(dir, 'config.json'), JSON.stringify(modelJson('qwen2')))
      }
      await writeFile(join(lfs, 'model.safetensors'), 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n')
      await writeFile(join(pickle, 'pytorch_model-00001-of-00002.bin'), 'x')
      await writeFile(join(none, 'training_args.bin'), 'x')
      assert.match((await messagesOf(lfs))[0]!, /model\.safetensors: it is a pointer of git-lfs.*run "git lfs pull" in /)
      assert.match(
        (await messagesOf(pickle))[0]!,
        /pytorch_model-00001-of-00002\.bin: its weights are Python pickles.*python -c "from transformers/
      )
      await mkdir(join(none, 'vlm'))
      await writeFile(join(none, 'model_index.json'), '{}')
      assert.match((await messagesOf(none))[0]!, /it is a pipeline \(InternVL-U\); give its folder .*vlm, with the files of /)
      await rm(join(none, 'model_index.json'))
      assert.match((await messagesOf(none))[0]!, /no weights; it should hold model\.safetensors/)
    }))

  it('a folder with unmerged LoRA (use_llm_lora) loads with merged weights, and converts to an ordinary folder', () =>
    inFolder(async (folder) => {
      const [plain, wrapped, to] = ['plain', 'wrapped', 'to'].map((name) => join(folder, name)) as [string, string, string]
      const { config, params } = smallModel(modelJson('qwen2'))
      await orThrow(saveModel(plain, { config, params, layout: 'original' }))
      disposeParams(params)
      const rank = 2
      const [a, b] = [(i: number) => ((i % 5) - 2) / 8, (i: number) => ((i % 7) - 3) / 4]
      const expected = new Map<string, Float32Array>()
      const all = (await stored(plain)).flatMap(({ key, dtype, shape, bytes }) => {
        const data = Buffer.from(bytes, 'base64')
        const name = key.replace(/^language_model\./, 'language_model.base_model.model.')
        const source = (k: string, s: readonly number[], d: Uint8Array) => ({ key: k, dtype, shape: s, bytes: () => d })
        if (!/self_attn\.[qv]_proj\.weight$/.test(key)) return [source(name, shape, data)]
        const [out, features] = shape as readonly [number, number]
        const [A, B] = [
          Float32Array.from({ length: rank * features }, (_, i) => a(i)),
          Float32Array.from({ length: out * rank }, (_, i) => b(i))
        ]
        const base = new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length))
        const update = (row: number, column: number) =>
          2 * (B[row * rank]! * A[column]! + B[row * rank + 1]! * A[features + column]!)
        const merged = base.map((w, i) => w + update(Math.floor(i / features), i % features))
        expected.set(`model.${key.replace('language_model.model.', 'language_model.')}`, merged)
        const module = name.replace(/\.weight$/, '')
        return [
          source(`${module}.base_layer.weight`, shape, data),
          source(`${module}.lora_A.default.weight`, [rank, features], bytesOf(A)),
          source(`${module}.lora_B.default.weight`, [out, rank], bytesOf(B))
        ]
      })
      await writeFolder(wrapped, { ...(await readJson(plain)), use_llm_lora: rank }, all)
      const check = async (dir: string): Promise<void> => {
        const loaded = await orThrow(loadModel(dir))
        const leaves = new Map(namedParameters(loaded.params))
        assert.equal(expected.size, 2)
        for (const [key, values] of expected) assert.deepEqual(Float32Array.from(leaves.get(key)!.dataSync()), values, key)
        loaded.dispose()
      }
      await check(wrapped)
      const checkpoint = await orThrow(openCheckpoint(wrapped, { imageTokenId: 1 }))
      await orThrow(convertModel(checkpoint, to, { layout: 'hf' }))
      await checkpoint.files.close()
      assert.equal((await readJson(to)).use_llm_lora, undefined)
      await check(to)
    }))
})
