import type { MachinePeaks } from '../measure/machine-peaks.js'
import type { Result } from './summary.js'
import { nameOf } from './table.js'

const giga = (value: number): string => (value / 1e9).toFixed(value < 1e10 ? 1 : 0)

/** The limits of the machine in one line. */
export const peaksLine = ({ threads, bytesPerSecond, float32, int16, int8 }: MachinePeaks): string => {
  const integers = [...(int16 ? [`int16 ${giga(int16)} Gop/s`] : []), ...(int8 ? [`int8 ${giga(int8)} Gop/s`] : [])]
  return [
    `limits (${threads} threads): memory ${giga(bytesPerSecond)} GB/s`,
    `float32 ${giga(float32)} GFLOP/s`,
    ...integers
  ].join(', ')
}

/**
 * For each result with known work: operations a second of vision and of the first token beside the peak of float32, and the bytes a second
 * that decoding reads beside the memory's.
 */
export const rooflineLines = (results: readonly Result[], peaks: MachinePeaks): readonly string[] =>
  results.flatMap((result) => {
    const { work, vision_s: vision, prefill_s: prefill, decode_tokens_per_s: speed, batch = 1 } = result
    if (!work) return []
    const arithmetic = (name: string, flop: number, seconds: number | undefined) =>
      seconds && flop > 0
        ? [`${name} ${giga(flop / seconds)} GFLOP/s (${(flop / seconds / peaks.float32).toFixed(2)} of float32's peak)`]
        : []
    const bytes = speed ? (speed / batch) * work.bytesPerToken : 0
    const reading = speed
      ? [
          `decoding reads ${(work.bytesPerToken / 1e6).toFixed(0)} MB a step, ${giga(bytes)} GB/s (${(bytes / peaks.bytesPerSecond).toFixed(2)} of the memory's)`
        ]
      : []
    const parts = [...arithmetic('vision', work.vision, vision), ...arithmetic('first token', work.prefill, prefill), ...reading]
    return [`${nameOf(result)}: ${parts.join('; ')}`]
  })
