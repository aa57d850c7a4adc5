import { Command, Option } from 'commander'
import { type AnswerFormat, answerFormats } from '../../jobs/answers/answer-lines.js'
import type { BatchProgress } from '../../jobs/run-batch.js'
import { parseShard, type Shard } from '../../jobs/shard.js'
import { info, type ModelFlags, positiveInteger, resolveModelFolder, stopSignal, withModelOptions } from '../common.js'
import { precisionOptions } from '../flags/precision-flags.js'
import { parsedBy, type RowFlags, rowOptions, withRowOptions } from '../flags/row-flags.js'
import { rowProgress } from '../row-progress.js'

interface BatchFlags extends ModelFlags, RowFlags {
  readonly out: string
  readonly batch: number
  readonly shard?: Shard
  readonly format?: AnswerFormat
  readonly restart?: true
  readonly retryErrors?: true
}

const answerFile = async (file: string, flags: BatchFlags): Promise<void> => {
  const { out, batch, shard, format, restart, retryErrors, engine, adapter, parts, imageBackend } = flags
  const model = flags.model === undefined ? undefined : await resolveModelFolder(flags.model, flags)
  const { runBatch } = await import('../../jobs/run-batch.js')
  const [progress, stop] = [rowProgress('batch'), stopSignal('stopping after the rows in progress; the same command continues')]
  try {
    const result: BatchProgress = await runBatch(file, {
      ...rowOptions(flags),
      ...{ out, batch, shard, format, restart, retryErrors, model, stop },
      engine: { ...precisionOptions(flags), engine, adapter, parts, imageBackend },
      onProgress: progress.update
    })
    progress.stop()
    const { total, errors, done, resumed } = result
    info(
      `${done} of ${total} rows in ${out}, ${done - resumed} answered now in ${progress.seconds().toFixed(1)} s, ${errors} with errors`
    )
    if (errors > 0 || done < total) process.exitCode = 1
  } catch (error) {
    progress.stop()
    if (!stop.aborted) throw error
    process.exitCode = 1
  }
}

/** `internvl batch`: answers every row of a file on this machine. */
export const batchCommand = (): Command =>
  withRowOptions(withModelOptions(new Command('batch')))
    .description('answer every row of a file of questions, with resumption after an interruption')
    .argument('<file>', 'jsonl, JSON array, Parquet, CSV or TSV, or a batch file of OpenAI')
    .requiredOption('-o, --out <file>', 'file of answers; .csv and .parquet are written at the end, jsonl line by line')
    .option('--batch <n>', 'rows that are answered together', positiveInteger, 8)
    .option('--shard <i/n>', 'only the i-th of n parts of the file, counted from 0, such as 0/4', parsedBy(parseShard))
    .addOption(
      new Option('--format <name>', 'format of the answers; default: by the extension of --out').choices([...answerFormats])
    )
    .option('--restart', 'replace earlier answers instead of continuing')
    .option('--retry-errors', 'answer the rows with errors again')
    .addHelpText(
      'after',
      `
A row has messages, or a question with images (a conversation of InternVL, LLaVA or Hugging Face, or the columns that the options
name). Its answer has row, id, answer, tokens, finishReason, logprob and error. The exit code is 1 if a row has an error.

Examples:
  internvl batch questions.jsonl --out answers.jsonl --model InternVL3-1B-hf --batch 8
  internvl batch images.parquet --out captions.parquet --prompt "Describe the image." --shard 0/4`
    )
    .action(answerFile)
