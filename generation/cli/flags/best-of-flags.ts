import { type Command, Option } from 'commander'
import type { Messages } from '../../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import type { ScoredAnswer, Scorer } from '../../evaluate/best-of.js'
import { info, loadWithProgress, positiveInteger } from '../common.js'
import { type GenerationFlags, generationOptions } from './generation-flags.js'

/** Options for the best of several sampled answers. */
export interface BestOfFlags extends GenerationFlags {
  readonly bestOf?: number
  readonly scorer?: string
}

/** Scorer: mean log-probability of the model itself. */
const logprobScorer = 'logprob'

/** Adds the options of `BestOfFlags`. */
export const withBestOfOptions = (command: Command): Command =>
  command
    .addOption(
      new Option('--best-of <n>', 'sample n answers and print the one with the highest score')
        .argParser(positiveInteger)
        .conflicts(['numBeams', 'draw', 'assistantModel'])
    )
    .option(
      '--scorer <name>',
      `${logprobScorer} (default): mean log-probability of the tokens of an answer; or the folder or org/name of a process reward model in the format of VisualPRM`
    )

/** Rejects invalid combinations of options before the model is loaded. */
export const checkBestOf = ({ bestOf, scorer, temperature }: BestOfFlags, command: Command): void => {
  if (scorer !== undefined && bestOf === undefined) command.error('error: --scorer needs --best-of', { exitCode: 2 })
  if (bestOf !== undefined && bestOf > 1 && temperature === 0)
    command.error('error: --best-of needs sampled answers; set --temperature above 0', { exitCode: 2 })
}

/** Loads the reward model that the flags name; undefined where the model scores its own answers. */
const loadRewardModel = async ({ scorer = logprobScorer, engine, offline, dtype, quantize, cache, force }: BestOfFlags) => {
  if (scorer === logprobScorer) return undefined
  const { processRewardScorer } = await import('../../evaluate/process-reward.js')
  const flags = { engine, offline, dtype, quantize, cache, force }
  const given = Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined))
  const rewardModel = await loadWithProgress({ ...given, model: scorer })
  return { score: processRewardScorer(rewardModel), dispose: rewardModel.dispose }
}

/** All sampled answers, the best first. Prints each answer with its score on standard error. */
export const bestAnswers = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  flags: BestOfFlags
): Promise<readonly ScoredAnswer[]> => {
  const { bestOf } = await import('../../evaluate/best-of.js')
  const reward = await loadRewardModel(flags)
  const scorer: Scorer | 'logprob' = reward?.score ?? 'logprob'
  const found = await bestOf(internvl, messages, { ...generationOptions(flags), n: flags.bestOf!, scorer })
  for (const { score, text } of found) info(`${score.toFixed(4)}  ${JSON.stringify(text)}`)
  reward?.dispose()
  return found
}
