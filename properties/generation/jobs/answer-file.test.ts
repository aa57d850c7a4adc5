import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { openAnswers } from '../../../generation/jobs/answers/answer-file.js'
import { modelIdentity } from '../../../generation/jobs/model-identity.js'
import { openAIRequest } from '../../../generation/jobs/rows/openai-row.js'

describe('files of answers', () => {
  let dir: string
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'answers-'))
  })
  after(() => rm(dir, { recursive: true }))

  it('a file that another process writes is refused, and stays as it is, with restart too', async () => {
    const out = join(dir, 'a.jsonl')
    const identity = { file: 'x' }
    const other = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'])
    const state = { version: 1, identity, host: hostname() }
    try {
      await writeFile(out, 'a line\n')
      await writeFile(`${out}.batch.json`, JSON.stringify({ ...state, pid: other.pid }))
      for (const restart of [false, true]) {
        const opened = openAnswers(out, { format: 'jsonl', identity, restart })
        await assert.rejects(opened, new RegExp(`process ${other.pid} writes it now`))
        assert.equal(await readFile(out, 'utf8'), 'a line\n')
      }
    } finally {
      other.kill()
    }
    for (const text of ['{', JSON.stringify({ ...state, version: 0 }), JSON.stringify({ ...state, pid: process.pid })]) {
      await writeFile(`${out}.batch.json`, text)
      await (await openAnswers(out, { format: 'jsonl', identity, restart: true })).close(false)
      assert.equal(await readFile(out, 'utf8'), '')
    }
  })

  it('every option that changes answers is part of the identity of a model', async () => {
    const options = [{}, { dtype: 'bfloat16' }, { kvCache: 'int8' }, { imageBackend: 'pillow' }, { parts: 'a.js' }, { defaults: { maxPatches: 2 } }] as const // biome-ignore format: one line
    const identities = await Promise.all(options.map((some) => modelIdentity(undefined, some)))
    assert.equal(new Set(identities).size, options.length)
    assert.equal(await modelIdentity(undefined, { imageBackend: undefined }), identities[0])
  })

  it("any seed of OpenAI's format is a seed", () => {
    const info = { model: 'm', vocabSize: 100, defaults: {}, chatTemplate: '', supportsTools: false, contextLength: 100 }
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (seed) => {
        const body = { messages: [{ role: 'user', content: 'x' }], seed: Number(seed) }
        const context = { row: 0, where: 'f:1', options: { seed: 1 }, info } as never
        const row = openAIRequest({ url: '/v1/chat/completions', body }, context)
        assert.ok(row._tag === 'Right' && Number.isSafeInteger(row.right.request.options!.seed))
      }),
      { examples: [[2n ** 60n]] }
    )
  })
})
