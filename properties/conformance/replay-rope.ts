import { dynamicRopeLength } from '../../lib/nn/rope.js'
import type { DecoderConfig } from '../../models/config/parse-config.js'

/** The part of an input on which rotary frequencies depend: prompt length in tokens, and generated tokens by kind. */
export interface Replayed {
  readonly label: string
  readonly length: number
  readonly generated: Readonly<Record<string, number>>
}

/** `ropeLength` for every computation on an input; undefined uses the length of the forward itself. */
export interface RopeLengths {
  readonly forward: number | undefined
  readonly generate: Readonly<Record<string, number | undefined>>
  readonly gradient: number | undefined
}

/** The order in which `make_reference.py` computes its inputs; other inputs follow, by name. */
const order = ['text-only', 'one-image', 'tiled-image', 'two-images', 'mixed-batch', 'video']
const rank = ({ label }: Replayed): number => (order.indexOf(label) + order.length + 1) % (order.length + 1)

/**
 * Replays the sequence lengths of the reference run. Transformers' rotary module of type `dynamic` keeps the frequencies of the
 * longest sequence so far, so stored values depend on earlier computations: forward, every generation, loss, then the next input.
 */
export const ropeLengths = (c: DecoderConfig, inputs: readonly Replayed[]): ReadonlyMap<string, RopeLengths> => {
  const trained = c.maxPositionEmbeddings
  if (c.rope.ropeType !== 'dynamic') return new Map()
  let remembered = trained
  const forward = (length: number): number | undefined => {
    remembered = dynamicRopeLength(remembered, length, trained)
    return length < trained ? undefined : remembered
  }
  const generation = (length: number, tokens: number): number | undefined => {
    const prompt = forward(length)
    for (let i = 1; i < tokens; i++) forward(length + i)
    return prompt
  }
  const sorted = [...inputs].sort((a, b) => rank(a) - rank(b) || a.label.localeCompare(b.label))
  return new Map(
    sorted.map(({ label, length, generated }) => [
      label,
      {
        forward: forward(length),
        generate: Object.fromEntries(Object.entries(generated).map(([kind, tokens]) => [kind, generation(length, tokens)])),
        gradient: forward(length)
      }
    ])
  )
}
