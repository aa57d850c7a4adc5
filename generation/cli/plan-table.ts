import { alignColumns } from '../evaluate/evaluation-summary.js'
import type { Plan, PlannedMedia, TrainingPlan } from '../plan/plan.js'
import { formatDuration } from '../train/logging/progress-bar.js'

/** Bytes in readable units: `1.23 GB`. */
export const inBytes = (bytes: number): string => {
  const [unit, size] = bytes >= 1e9 ? ['GB', 1e9] : bytes >= 1e6 ? ['MB', 1e6] : ['kB', 1e3]
  return `${(bytes / (size as number)).toFixed(2)} ${unit}`
}

const inSeconds = (seconds: number): string =>
  seconds < 1 ? `${(1000 * seconds).toPrecision(3)} ms` : seconds < 90 ? `${seconds.toPrecision(3)} s` : formatDuration(seconds)

const mediaLine = ({ source, kind, tiles, columns, rows, tokens }: PlannedMedia): string => {
  const grid = columns && rows ? ` (${columns} x ${rows}${tiles > columns * rows ? ' and the thumbnail' : ''})` : ''
  const unit = kind === 'image' ? 'tile' : 'frame'
  return `${kind.padEnd(12)}${source}: ${tiles} ${unit}${tiles === 1 ? '' : 's'}${grid}, ${tokens} tokens`
}

const partsLine = (parts: Readonly<Record<string, number>>): string =>
  Object.entries(parts)
    .map(([part, bytes]) => `${part} ${inBytes(bytes)}`)
    .join(', ')

const trainingLines = ({
  trainedParameters,
  parts,
  bytes,
  fits,
  largestBatch,
  secondsPerStep
}: TrainingPlan): readonly string[] => [
  `training    ${trainedParameters.toLocaleString('en-US')} parameters, ${inBytes(bytes)}: ${fits ? 'fits' : 'does not fit'}; largest batch ${largestBatch}`,
  `            ${partsLine(parts)}`,
  ...(secondsPerStep === undefined ? [] : [`            about ${inSeconds(secondsPerStep)} a step`])
]

/** Renders a plan: media, tokens, a table of precisions, and the training. */
export const renderPlan = (plan: Plan): string => {
  const { media, promptTokens, imageTokens, positions, positionsLeft, memory, precisions, training } = plan
  const hasTimes = precisions.some(({ seconds }) => seconds)
  const header = ['precision', 'memory', 'fits', 'tiles', 'frames', 'rows', ...(hasTimes ? ['first token', 'token', 'all'] : [])]
  const lines = precisions.map(({ name, bytes, fits, largest, seconds }) => [
    ...[name, inBytes(bytes), fits ? 'yes' : 'no', `${largest.tiles}`, `${largest.frames}`, `${largest.rows}`],
    ...(seconds ? [seconds.firstToken, seconds.token, seconds.total].map(inSeconds) : [])
  ])
  const left = positionsLeft < 0 ? `${-positionsLeft} too many` : `${positionsLeft} left`
  return [
    ...media.map(mediaLine),
    `prompt      ${promptTokens} tokens, ${imageTokens} of them of images; ${positions} positions, ${left}`,
    `memory      ${inBytes(memory)} available; tiles, frames and rows are the largest numbers that fit`,
    '',
    ...alignColumns([header, ...lines]),
    '',
    ...precisions.map(({ name, parts }) => `${name.padEnd(12)}${partsLine(parts)}`),
    ...(training ? ['', ...trainingLines(training)] : [])
  ].join('\n')
}
