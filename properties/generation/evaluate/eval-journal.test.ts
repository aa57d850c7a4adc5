import assert from 'node:assert/strict'
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { evalCommand } from '../../../generation/cli/commands/eval-command.js'
import { evaluateRows } from '../../../generation/evaluate/eval-journal.js'

/** Output of `internvl eval` as JSON. */
const evaluated = async (...args: readonly string[]) => {
  const [log, lines] = [console.log, [] as string[]]
  console.log = (line: unknown) => void lines.push(String(line))
  try {
    await evalCommand()
      .exitOverride()
      .parseAsync(['node', 'eval', ...args, '--json'])
  } finally {
    console.log = log
  }
  return JSON.parse(lines.join('\n'))
}

describe('an evaluation', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'eval-'))
  })
  afterEach(() => rm(dir, { recursive: true }))

  it('rows that share an id are counted by line', async () => {
    const file = join(dir, 'rows.jsonl')
    const row = (value: string) =>
      JSON.stringify({ id: 7, conversations: [{ from: 'human', value: 'Who are you?' }, { from: 'gpt', value }] }) // biome-ignore format: one row
    await writeFile(file, [row('WRONG'), row('WRONG'), row('')].join('\n'))
    const output = join(dir, 'answers.jsonl')
    await evaluated(file, '--max-new-tokens', '3', '-o', output)
    const { answer } = JSON.parse((await readFile(output, 'utf8')).split('\n')[2]!)
    await writeFile(file, [row('WRONG'), row('WRONG'), row(answer)].join('\n'))
    const { all } = await evaluated(file, '--max-new-tokens', '3', '--batch-size', '2')
    assert.deepEqual(all, { right: 1, rows: 3 })
  })

  it('interrupted after any batch, and with any garbage at the end of its journal, has the results of one run', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(3), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 4 }),
        fc.nat(3),
        fc.constantFrom('', '{"row": 0, "resu', 'null', '{"row":1}\n', '\n\n'),
        async (rows, batchSize, batches, garbage) => {
          const file = join(dir, 'journal.jsonl')
          await rm(file, { force: true })
          let calls = 0
          const evaluate = async (batch: readonly number[]) => {
            if (calls++ === batches) throw new Error('killed')
            return batch.map((row) => ({ twice: 2 * row }))
          }
          const first = evaluateRows(rows, file, { batchSize, evaluate })
          await first.then(undefined, (error: Error) => assert.match(error.message, /killed/))
          await appendFile(file, garbage)
          let count = 0
          const again = await evaluateRows(rows, file, {
            batchSize,
            evaluate: async (batch) => {
              count += batch.length
              return batch.map((row) => ({ twice: 2 * row }))
            }
          })
          assert.deepEqual(again, rows.map((row) => ({ twice: 2 * row }))) // biome-ignore format: one line
          assert.equal(count, Math.max(0, rows.length - batches * batchSize))
        }
      ),
      { numRuns: 25 }
    ))
})
