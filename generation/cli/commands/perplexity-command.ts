import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import { orThrow } from '../../../lib/error.js'
import { type DatasetRow, readDataset } from '../../evaluate/eval-dataset.js'
import { info, loadWithProgress, type ModelFlags, positiveInteger, withLoadOptions } from '../common.js'
import { precisionOptions } from '../flags/precision-flags.js'

interface PerplexityFlags extends Omit<ModelFlags, 'maxNewTokens'> {
  readonly rows?: number
  readonly json?: true
}

/** The rows with an answer. Throws a `RangeError` if no row has an answer. */
const rowsWithAnswers = (rows: readonly DatasetRow[], file: string): readonly DatasetRow[] => {
  const withAnswers = rows.filter(({ messages }) => messages.some(({ role }) => role === 'assistant'))
  if (withAnswers.length === 0)
    throw new RangeError(`${file}: no row has an answer ({"from": "gpt", …}); perplexity needs answers`)
  if (withAnswers.length < rows.length)
    info(`${file}: ${rows.length - withAnswers.length} of ${rows.length} rows have no answer and are skipped`)
  return withAnswers
}

const runPerplexity = async (file: string, flags: PerplexityFlags): Promise<void> => {
  const rows = rowsWithAnswers(await orThrow(readDataset(file)), file).slice(0, flags.rows)
  const internvl = await loadWithProgress(flags)
  const { answerPerplexity } = await import('../../evaluate/perplexity.js')
  const bar = new SingleBar({ format: 'perplexity [{bar}] {value}/{total} rows', stream: process.stderr, hideCursor: true })
  if (process.stderr.isTTY) bar.start(rows.length, 0)
  try {
    const conversations = rows.map(({ messages }) => messages)
    const maxPatches = flags.maxPatches ?? 1 // as `eval`
    const found = await answerPerplexity(internvl, conversations, { maxPatches, onRow: (done) => bar.update(done) })
    const run = { file, model: internvl.dir, engine: internvl.engine.name, ...precisionOptions(flags), rows: rows.length }
    console.log(flags.json ? JSON.stringify({ ...run, ...found }, null, 2) : found.perplexity.toFixed(4))
    info(
      `${rows.length} rows, ${found.tokens} answer tokens, ${found.loss.toFixed(4)} nats per token, on ${internvl.engine.name}`
    )
  } finally {
    bar.stop()
    internvl.dispose()
  }
}

/** `internvl perplexity`: perplexity of the answers of a file. */
export const perplexityCommand = (): Command =>
  withLoadOptions(new Command('perplexity'))
    .description('perplexity of the answers in a jsonl file; lower is better')
    .argument('<file>', 'jsonl file; image paths are relative to the file')
    .addHelpText(
      'after',
      `
The perplexity covers the tokens of every answer and its end-of-turn token. Images use one tile unless --max-patches is given.

Examples:
  internvl perplexity questions.jsonl --model InternVL3-1B-hf
  internvl perplexity questions.jsonl --model InternVL3-1B-hf --quantize int4`
    )
    .option('--rows <n>', 'use only the first n rows; default: all', positiveInteger)
    .option('--json', 'print the figures as JSON')
    .action(runPerplexity)
