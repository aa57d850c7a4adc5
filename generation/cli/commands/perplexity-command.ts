import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import { orThrow } from '../../../lib/error.js'
import { type DatasetRow, readDataset } from '../../evaluate/eval-dataset.js'
import { loadWithProgress, type ModelFlags, say, wholeNumber, withLoadOptions } from '../common.js'
import { precisionOptions } from '../flags/precision-flags.js'

interface PerplexityFlags extends Omit<ModelFlags, 'maxNewTokens'> {
  readonly rows?: number
  readonly json?: true
}

/** Rows that have an answer; throws a `RangeError` where none has. */
const answered = (rows: readonly DatasetRow[], file: string): readonly DatasetRow[] => {
  const some = rows.filter(({ messages }) => messages.some(({ role }) => role === 'assistant'))
  if (some.length === 0)
    throw new RangeError(`${file}: no row has an answer ({"from": "gpt", …}), so there is nothing to predict`)
  if (some.length < rows.length)
    say(`${file}: ${rows.length - some.length} of ${rows.length} rows have no answer and are left out`)
  return some
}

const measure = async (file: string, flags: PerplexityFlags): Promise<void> => {
  const rows = answered(await orThrow(readDataset(file)), file).slice(0, flags.rows)
  const internvl = await loadWithProgress(flags)
  const { answerPerplexity } = await import('../../evaluate/perplexity.js')
  const bar = new SingleBar({ format: 'perplexity [{bar}] {value}/{total} rows', stream: process.stderr, hideCursor: true })
  if (process.stderr.isTTY) bar.start(rows.length, 0)
  try {
    const conversations = rows.map(({ messages }) => messages)
    const maxPatches = flags.maxPatches ?? 1 // as `eval`
    const found = await answerPerplexity(internvl, conversations, { maxPatches, onRow: (done) => bar.update(done) })
    const who = { file, model: internvl.dir, engine: internvl.engine.name, ...precisionOptions(flags), rows: rows.length }
    console.log(flags.json ? JSON.stringify({ ...who, ...found }, null, 2) : found.perplexity.toFixed(4))
    say(
      `${rows.length} rows, ${found.tokens} tokens of answers, ${found.loss.toFixed(4)} nats a token, on ${internvl.engine.name}`
    )
  } finally {
    bar.stop()
    internvl.dispose()
  }
}

/** `internvl perplexity`: how well a model predicts the answers of a file. */
export const perplexityCommand = (): Command =>
  withLoadOptions(new Command('perplexity'))
    .description("perplexity of the assistant's answers in a file in InternVL's jsonl form: lower is better")
    .argument('<file>', 'the jsonl file; pictures are named relative to it')
    .addHelpText(
      'after',
      `
Counted are the tokens of every answer and the one that ends its turn. Pictures are one tile each unless --max-patches says more.

Examples:
  internvl perplexity questions.jsonl --model InternVL3-1B-hf
  internvl perplexity questions.jsonl --model InternVL3-1B-hf --quantize 4bit`
    )
    .option('--rows <n>', 'the first so many rows; all by default', wholeNumber)
    .option('--json', 'the figures as JSON')
    .action(measure)
