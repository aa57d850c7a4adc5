import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { openJournal } from '../../../generation/jobs/answers/answer-journal.js'
import { type AnswerFormat, linesOf } from '../../../generation/jobs/answers/answer-lines.js'
import { restoreOrder } from '../../../generation/jobs/answers/restore-order.js'
import { failedAnswer, type RowAnswer } from '../../../generation/jobs/answers/row-answer.js'
import { parseShard, shardRange } from '../../../generation/jobs/shard.js'

const formats: readonly AnswerFormat[] = ['jsonl', 'openai']

const answerOf = (row: number, text: string): RowAnswer =>
  row % 3 === 0
    ? failedAnswer(row, row, `wrong\n ${text}`)
    : { row, id: `é${row}`, answer: text, tokens: 1, finishReason: 'eos', logprob: -1, error: null, body: { text } }

describe('a file of answers', () => {
  let dir: string
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'journal-'))
  })
  after(() => rm(dir, { recursive: true }))

  it('that was cut off at any byte has every row once and in order after the missing rows are appended', async () => {
    const rows = fc.uniqueArray(fc.nat(30), { minLength: 1 })
    await fc.assert(
      fc.asyncProperty(
        rows,
        fc.string({ unit: 'grapheme' }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.constantFrom(...formats),
        async (order, text, cut, format) => {
          const [file, lines] = [join(dir, 'answers.jsonl'), linesOf(format)]
          await rm(file, { force: true })
          const first = await openJournal(file, lines)
          await Promise.all(order.map((row) => first.append(answerOf(row, text))))
          await first.close()
          const { length } = await readFile(file)
          await truncate(file, Math.floor(length * cut))
          const second = await openJournal(file, lines)
          for (const row of [...order, ...order]) await second.append(answerOf(row, text)) // no row is written twice
          assert.equal(second.errors(), order.filter((row) => row % 3 === 0).length)
          await second.close()
          await restoreOrder(file, lines)
          const expected = [...order].sort((a, b) => a - b).map((row) => lines.toLine(answerOf(row, text)))
          assert.equal(await readFile(file, 'utf8'), expected.map((line) => `${line}\n`).join(''))
        }
      ),
      { numRuns: 40 }
    )
  })

  it('takes the last line of a row whose error was answered again', async () => {
    const [file, lines] = [join(dir, 'again.jsonl'), linesOf('jsonl')]
    await writeFile(file, `${lines.toLine(failedAnswer(0, undefined, 'wrong'))}\n${lines.toLine(answerOf(1, 'one'))}\n`)
    const journal = await openJournal(file, lines, { retryErrors: true })
    assert.deepEqual([...journal.done], [1])
    await journal.append({ ...answerOf(1, 'zero'), row: 0 })
    await journal.close()
    await restoreOrder(file, lines)
    const written = (await readFile(file, 'utf8')).trim().split('\n')
    assert.deepEqual(
      written.map((line) => JSON.parse(line).answer),
      ['zero', 'one']
    )
  })
})

describe('shards', () => {
  it('are consecutive parts of the rows, of sizes that differ by at most one', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.integer({ min: 1, max: 50 }), (rows, count) => {
        const ranges = Array.from({ length: count }, (_, index) => shardRange(rows, parseShard(`${index}/${count}`)))
        assert.deepEqual([0, ...ranges.map(({ end }) => end)], [...ranges.map(({ start }) => start), rows])
        const sizes = ranges.map(({ start, end }) => end - start)
        assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1)
      })
    )
  })

  it('are named from 0', () => {
    assert.throws(() => parseShard('3/3'), /shard 3\/3: parts are counted from 0; the last of 3 is 2\/3/)
    for (const text of ['', '1', '-1/3', '0/0', 'a/b', '1/2/3']) assert.throws(() => parseShard(text), RangeError, text)
  })
})
