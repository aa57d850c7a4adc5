import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'csv-parse/sync'
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
import { fileWriter, parquetWrite } from 'hyparquet-writer'
import type { EngineRequest } from '../../../generation/engine/engine-types.js'
import { type BatchOptions, runBatch } from '../../../generation/jobs/run-batch.js'
import type { ImageItem } from '../../../processors/text/messages.js'
import { itemsOf } from '../../../processors/text/messages.js'
import { fixedEngine, questionOf } from './fixed-engine.js'

const lines = async (file: string): Promise<readonly Readonly<Record<string, unknown>>[]> =>
  (await readFile(file, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

/** A line of OpenAI's answers. */
interface Line {
  readonly custom_id: string
  readonly response: {
    readonly status_code: number
    readonly body: {
      readonly choices: unknown
      readonly usage: { readonly completion_tokens: number }
      readonly error: { readonly message: string }
    }
  }
  readonly error: { readonly message: string } | null
}

const jsonl = (rows: readonly object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

describe('runBatch', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'batch-'))
  })
  afterEach(() => rm(dir, { recursive: true }))

  const run = (file: string, out: string, options: Partial<BatchOptions> = {}, engine = fixedEngine()) =>
    runBatch(join(dir, file), { out: join(dir, out), startEngine: async () => engine, ...options })

  /** Runs with an engine that keeps the requests. */
  const requestsOf = async (file: string, options: Partial<BatchOptions> = {}): Promise<readonly EngineRequest[]> => {
    const requests: EngineRequest[] = []
    const engine = fixedEngine()
    const submit: typeof engine.submit = (request) => {
      requests.push(request)
      return engine.submit(request)
    }
    await run(file, `${file}.answers.jsonl`, { batch: 1, ...options }, { ...engine, submit })
    return requests.toSorted((a, b) => questionOf(a).localeCompare(questionOf(b)))
  }

  const imagesOf = ({ messages = [] }: EngineRequest) =>
    messages
      .flatMap(itemsOf)
      .filter((item): item is ImageItem => item.type === 'image')
      .map(({ path }) => path)

  it('continues after a stop at any row: every row once, in order, equal to a run without a stop', async () => {
    const rows = Array.from({ length: 30 }, (_, i) => ({ id: i, question: 'x'.repeat((i * 7) % 11) + i }))
    await writeFile(join(dir, 'q.jsonl'), jsonl(rows))
    await run('q.jsonl', 'whole.jsonl')
    for (const stopAt of [1, 7, 29]) {
      const [stop, out] = [new AbortController(), `a${stopAt}.jsonl`]
      let asked = 0
      const onQuestion = () => (++asked === stopAt ? stop.abort() : undefined)
      const first = await run('q.jsonl', out, { stop: stop.signal, batch: 3 }, fixedEngine({ onQuestion }))
      assert.ok(first.done >= stopAt && first.done < stopAt + 3, `${first.done} rows`)
      asked = 0
      const second = await run('q.jsonl', out, {}, fixedEngine({ onQuestion: () => asked++ }))
      assert.deepEqual(second, { done: 30, total: 30, resumed: first.done, errors: 0 })
      assert.equal(asked, 30 - first.done)
      assert.equal(await readFile(join(dir, out), 'utf8'), await readFile(join(dir, 'whole.jsonl'), 'utf8'))
    }
  })

  it('asks prompts of like length together, the longest first', async () => {
    const questions = Array.from({ length: 40 }, (_, i) => 'x'.repeat((i * 17) % 41) || '-')
    await writeFile(join(dir, 'q.jsonl'), jsonl(questions.map((question) => ({ question }))))
    const asked: number[] = []
    await run('q.jsonl', 'a.jsonl', { batch: 4 }, fixedEngine({ onQuestion: ({ length }) => asked.push(length) }))
    assert.deepEqual(
      asked,
      questions.map(({ length }) => length).sort((a, b) => b - a)
    )
  })

  it('joined shards are the whole', async () => {
    await writeFile(join(dir, 'q.jsonl'), jsonl(Array.from({ length: 10 }, (_, i) => ({ question: `q${i}` }))))
    await run('q.jsonl', 'whole.jsonl')
    let joined = ''
    for (const index of [0, 1, 2]) {
      await run('q.jsonl', `part${index}.jsonl`, { shard: { index, count: 3 } })
      joined += await readFile(join(dir, `part${index}.jsonl`), 'utf8')
    }
    assert.equal(joined, await readFile(join(dir, 'whole.jsonl'), 'utf8'))
  })

  it('a wrong row, a refused one and one that ends the model have their error as a line, in jsonl, CSV and Parquet', async () => {
    await writeFile(
      join(dir, 'q.jsonl'),
      '{"id":"a","question":"good"}\nnot json\n\n[1]\n{"id":7}\n{"question":"refused"}\n{"question":"deadly"}\n{"question":"also\u2028good, \\"yes\\""}\n'
    )
    const engine = fixedEngine({ delay: 5, isRefused: (q) => q === 'refused', isDeadly: (q) => q === 'deadly' })
    const result = await run('q.jsonl', 'a.jsonl', {}, engine)
    assert.deepEqual(result, { done: 7, total: 7, resumed: 0, errors: 5 })
    const answers = await lines(join(dir, 'a.jsonl'))
    assert.deepEqual(answers[0], {
      row: 0,
      id: 'a',
      answer: 'answer to good',
      tokens: 4,
      finishReason: 'eos',
      logprob: -2.0833,
      error: null
    })
    const errors = answers.map(({ error }) => error as string | null)
    assert.match(errors[1]!, /q\.jsonl:2: not JSON/)
    assert.match(errors[2]!, /q\.jsonl:4: not a JSON object/)
    assert.match(errors[3]!, /q\.jsonl:5: no question; expected a column question, prompt, text, or messages, or --prompt/)
    assert.deepEqual(errors.slice(4), ['refused: refused', errors[5], null])
    assert.match(errors[5]!, /The process of the model ends at this row/)
    assert.equal(answers[6]!.answer, 'answer to also\u2028good, "yes"')
    for (const error of errors) assert.ok(!error?.includes('\n'))
    await run('q.jsonl', 'a.csv', {}, engine)
    const table = parse(await readFile(join(dir, 'a.csv')), { columns: true }) as Readonly<Record<string, string>>[]
    const asText = (value: unknown): string => (value === null || value === undefined ? '' : String(value))
    assert.deepEqual(
      table,
      answers.map((answer) => Object.fromEntries(Object.keys(table[0]!).map((name) => [name, asText(answer[name])])))
    )
    await run('q.jsonl', 'a.parquet', {}, engine)
    const parquet = await parquetReadObjects({ file: await asyncBufferFromFile(join(dir, 'a.parquet')) })
    assert.deepEqual(
      parquet,
      answers.map(({ id = null, ...answer }) => ({ ...answer, id: id === null ? null : String(id) }))
    )
    const again = await run('q.jsonl', 'a.parquet', {}, fixedEngine({ onQuestion: () => assert.fail('every row has an answer') }))
    assert.deepEqual(again, { done: 7, total: 7, resumed: 7, errors: 5 })
    const retried = await run('q.jsonl', 'a.jsonl', { retryErrors: true })
    assert.deepEqual(retried, { done: 7, total: 7, resumed: 2, errors: 3 })
  })

  it('reads the same rows from jsonl, a JSON array, CSV, TSV and Parquet, with columns by name', async () => {
    const rows = [
      { key: 'one', text: 'a, "b"', photo: 'p1.png' },
      { key: 'two', text: 'b\nc', photo: 'https://example.org/p2.png' }
    ]
    const cell = (text: string): string => `"${text.replaceAll('"', '""')}"`
    const table = (delimiter: string) =>
      [Object.keys(rows[0]!), ...rows.map(Object.values)].map((row) => row.map(cell).join(delimiter)).join('\r\n')
    await writeFile(join(dir, 'q.jsonl'), `\uFEFF${jsonl(rows)}`)
    await writeFile(join(dir, 'q.json'), JSON.stringify(rows))
    await writeFile(join(dir, 'q.csv'), `\uFEFF${table(',')}`)
    await writeFile(join(dir, 'q.tsv'), table('\t'))
    const columnData = (['key', 'text', 'photo'] as const).map((name) => ({ name, data: rows.map((row) => row[name]) }))
    await parquetWrite({ writer: fileWriter(join(dir, 'q.parquet')), columnData })
    const columns = { id: 'key', prompt: 'text', image: 'photo' }
    for (const file of ['q.jsonl', 'q.json', 'q.csv', 'q.tsv', 'q.parquet']) {
      const requests = await requestsOf(file, { columns, system: 'Be brief.' })
      assert.deepEqual(requests.map(questionOf), ['Be brief.a, "b"', 'Be brief.b\nc'], file)
      assert.deepEqual(requests.map(imagesOf), [[join(dir, 'p1.png')], ['https://example.org/p2.png']], file)
      const answers = await lines(join(dir, `${file}.answers.jsonl`))
      assert.deepEqual(
        answers.map(({ id }) => id),
        ['one', 'two'],
        file
      )
    }
  })

  it('images are paths, URLs or bytes, as a column of bytes or a struct of Hugging Face', async () => {
    const bytes = Uint8Array.from([1, 2, 250])
    const url = `data:application/octet-stream;base64,${Buffer.from(bytes).toString('base64')}`
    await parquetWrite({
      writer: fileWriter(join(dir, 'bytes.parquet')),
      columnData: [{ name: 'image', data: [bytes], type: 'BYTE_ARRAY' }]
    })
    const [fromParquet] = await requestsOf('bytes.parquet', { prompt: 'Describe.' })
    assert.deepEqual(imagesOf(fromParquet!), [url])
    assert.equal(questionOf(fromParquet!), 'Describe.')
    const images = [
      { bytes: [1, 2, 250], path: 'x.png' },
      { path: 'x.png' },
      { url: 'http://example.org/x' },
      { bytes: Buffer.from(bytes).toString('base64') }
    ]
    await writeFile(join(dir, 'q.jsonl'), jsonl([{ images, question: 'Which?' }]))
    const [fromJson] = await requestsOf('q.jsonl')
    assert.deepEqual(imagesOf(fromJson!), [url, join(dir, 'x.png'), 'http://example.org/x', url])
  })

  it('a conversation is asked without the answer at its end; seeds differ by row', async () => {
    const conversations = [
      { from: 'human', value: '<image>\nWhat?' },
      { from: 'gpt', value: 'This.' }
    ]
    const messages = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b' },
      { role: 'user', content: 'c' }
    ]
    await writeFile(join(dir, 'q.jsonl'), jsonl([{ image: 'x.png', conversations }, { messages }]))
    const requests = await requestsOf('q.jsonl', { generate: { doSample: true, temperature: 1, seed: 5 } })
    assert.deepEqual(
      requests.map(questionOf),
      ['abc', 'What?'].sort((a, b) => a.localeCompare(b))
    )
    assert.deepEqual(requests.map(({ options }) => options!.seed).sort(), [5, 6])
    assert.ok(requests.every(({ options }) => options!.outputLogprobs === true))
  })

  it('answers a batch file of OpenAI as one; rows with errors have them in response and error', async () => {
    const body = (content: unknown) => ({ model: 'm', max_tokens: 3, temperature: 0, messages: [{ role: 'user', content }] })
    const rows = [
      { custom_id: 'r-1', method: 'POST', url: '/v1/chat/completions', body: body('Hi') },
      { custom_id: 'r-2', method: 'POST', url: '/v1/images', body: body('Hi') },
      { custom_id: 'r-3', method: 'POST', url: '/v1/chat/completions', body: { messages: [] } },
      {
        custom_id: 'r-4',
        method: 'POST',
        url: '/v1/chat/completions',
        body: body([
          { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } },
          { type: 'text', text: 'Yo' }
        ])
      }
    ]
    await writeFile(join(dir, 'q.jsonl'), jsonl(rows))
    const requests = await requestsOf('q.jsonl')
    assert.deepEqual(
      requests.map(({ options }) => [options!.maxNewTokens, options!.doSample]),
      [
        [3, false],
        [3, false]
      ]
    )
    const answers = (await lines(join(dir, 'q.jsonl.answers.jsonl'))) as unknown as readonly [Line, Line, Line]
    assert.deepEqual(
      answers.map(({ custom_id }) => custom_id),
      ['r-1', 'r-2', 'r-3', 'r-4']
    )
    const [first, second, third] = answers
    assert.equal(first.response.status_code, 200)
    assert.deepEqual(first.response.body.choices, [
      { index: 0, message: { role: 'assistant', content: 'answer to Hi', refusal: null }, logprobs: null, finish_reason: 'stop' }
    ])
    assert.equal(first.response.body.usage.completion_tokens, 2)
    assert.equal(first.error, null)
    assert.equal(second.response.status_code, 400)
    assert.match(second.error!.message, /url: only \/v1\/chat\/completions is answered/)
    assert.match(third.response.body.error.message, /body\.messages/)
    await run('q.jsonl', 'a.csv')
    assert.match(await readFile(join(dir, 'a.csv'), 'utf8'), /^row,id,.*\n0,r-1,answer to Hi,/)
  })

  it('refuses files that cannot be read, and answers that are of other questions, another model or other options', async () => {
    const refused = async (file: string, out: string, message: RegExp, options: Partial<BatchOptions> = {}): Promise<void> => {
      await assert.rejects(run(file, out, options), (error: Error) => {
        assert.match(error.message, message)
        assert.equal(error.name, 'InternVLError')
        return !error.message.includes('\n')
      })
    }
    await writeFile(join(dir, 'q.jsonl'), '{"question":"a"}\n')
    const noRow = run('q.jsonl', 'none.jsonl', { generate: { promptLookupNumTokens: 4, numBeams: 2 } })
    await assert.rejects(noRow, { name: 'RangeError', message: /promptLookupNumTokens/ })
    assert.ok(!existsSync(join(dir, 'none.jsonl')))
    await writeFile(join(dir, 'empty.jsonl'), '\n')
    await writeFile(join(dir, 'bad.parquet'), 'PAR1 no PAR1')
    await writeFile(join(dir, 'bad.csv'), 'a,b\n"x')
    await writeFile(join(dir, 'bad.json'), '[1,')
    await refused('none.jsonl', 'a.jsonl', /none\.jsonl: cannot be read \(ENOENT\)/)
    await refused('empty.jsonl', 'a.jsonl', /empty\.jsonl: no rows/)
    for (const file of ['bad.parquet', 'bad.csv']) await refused(file, 'a.jsonl', new RegExp(`${file}: cannot be read \\(`))
    await refused('bad.json', 'a.jsonl', /bad\.json: not JSON/)
    await refused('q.jsonl', 'q.jsonl/a.jsonl', /q\.jsonl\/a\.jsonl: cannot be written \((EEXIST|ENOTDIR)\)/)
    await refused('q.jsonl', '.', /is not a file/)
    await refused('q.jsonl', 'empty.jsonl', /empty\.jsonl: exists and was not written by this command/)
    const model = join(dir, 'model')
    await mkdir(model)
    await writeFile(join(model, 'config.json'), '{}')
    await run('q.jsonl', 'a.jsonl', { model })
    await refused('q.jsonl', 'a.jsonl', /of another set of options;/, { model, generate: { maxNewTokens: 3 } })
    await refused('q.jsonl', 'a.jsonl', /of another shard;/, { model, shard: { index: 0, count: 2 } })
    await cp(model, join(dir, 'copy'), { recursive: true })
    await run('q.jsonl', 'a.jsonl', { model: join(dir, 'copy') })
    await writeFile(join(model, 'config.json'), '{ }')
    await refused('q.jsonl', 'a.jsonl', /of another model; give another --out, or --restart/, { model })
    await writeFile(join(dir, 'q.jsonl'), '{"question":"b"}\n')
    await refused('q.jsonl', 'a.jsonl', /of another file of questions and another model;/, { model })
    await run('q.jsonl', 'a.jsonl', { model, restart: true })
    assert.equal((await lines(join(dir, 'a.jsonl')))[0]!.answer, 'answer to b')
  })
})
