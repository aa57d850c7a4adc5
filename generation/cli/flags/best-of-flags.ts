import { type Command, Option } from 'commander'
import type { Messages } from '../../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import type { ScoredAnswer, Scorer } from '../../evaluate/best-of.js'
import { loadWithProgress, say, wholeNumber } from '../common.js'
import { type GenerationFlags, generationOptions } from './generation-flags.js'

/** What asks for the best of several answers. */
export interface BestOfFlags extends GenerationFlags {
  readonly bestOf?: number
  readonly scorer?: string
}

/** Scores by the model's own mean log-probability. */
const byItself = 'logprob'

/** Adds the options of `BestOfFlags`. */
export const withBestOfOptions = (command: Command): Command =>
  command
    .addOption(
      new Option('--best-of <n>', 'draw so many answers and give the one that the scorer likes best')
        .argParser(wholeNumber)
        .conflicts(['numBeams', 'draw'])
    )
    .option(
      '--scorer <name>',
      `${byItself}: the mean log-probability of an answer's tokens, the default; or a process reward model in VisualPRM's form, its folder or org/name`
    )

/** Calls that mean nothing, before a model is opened. */
export const checkBestOf = ({ bestOf, scorer, temperature }: BestOfFlags, command: Command): void => {
  if (scorer !== undefined && bestOf === undefined) command.error('error: --scorer needs --best-of', { exitCode: 2 })
  if (bestOf !== undefined && bestOf > 1 && temperature === 0)
    command.error('error: --best-of needs answers that differ: give a --temperature above 0', { exitCode: 2 })
}

/** The reward model that the flags name, opened, and how it scores; nothing for the model's own probabilities. */
const rewarding = async ({ scorer = byItself, engine, offline, dtype, quantize, cache, force }: BestOfFlags) => {
  if (scorer === byItself) return undefined
  const { processRewardScorer } = await import('../../evaluate/process-reward.js')
  const flags = { engine, offline, dtype, quantize, cache, force }
  const given = Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined))
  const rewardModel = await loadWithProgress({ ...given, model: scorer })
  return { score: processRewardScorer(rewardModel), dispose: rewardModel.dispose }
}

/** All answers that were drawn, the best first; each with its score on standard error. */
export const bestAnswers = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  flags: BestOfFlags
): Promise<readonly ScoredAnswer[]> => {
  const { bestOf } = await import('../../evaluate/best-of.js')
  const reward = await rewarding(flags)
  const scorer: Scorer | 'logprob' = reward?.score ?? 'logprob'
  const found = await bestOf(internvl, messages, { ...generationOptions(flags), n: flags.bestOf!, scorer })
  for (const { score, text } of found) say(`${score.toFixed(4)}  ${JSON.stringify(text)}`)
  reward?.dispose()
  return found
}
