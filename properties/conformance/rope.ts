import { rememberedLength } from '../../lib/nn/rope.js'
import type { DecoderConfig } from '../../models/config/parse-config.js'

/** An input of a case as far as rotary frequencies depend on it: its length in tokens and how many it generated, by kind. */
export interface Replayed {
  readonly label: string
  readonly length: number
  readonly generated: Readonly<Record<string, number>>
}

/** `ropeLength` for each of the things that are computed for an input; undefined: whatever the forward's own length gives. */
export interface RopeLengths {
  readonly forward: number | undefined
  readonly generate: Readonly<Record<string, number | undefined>>
  readonly gradient: number | undefined
}

/** The order in which `make_reference.py` computes its inputs; others come after, by name. */
const order = ['text-only', 'one-image', 'tiled-image', 'two-images', 'mixed-batch', 'video']
const rank = ({ label }: Replayed): number => (order.indexOf(label) + order.length + 1) % (order.length + 1)

/**
 * Transformers' rotary module of type `dynamic` keeps the frequencies of the longest sequence that it met, so stored numbers
 * depend on what was computed before them: forward, every generation, loss, then the next input. This replays that.
 */
export const ropeLengths = (c: DecoderConfig, inputs: readonly Replayed[]): ReadonlyMap<string, RopeLengths> => {
  const trained = c.maxPositionEmbeddings
  if (c.rope.ropeType !== 'dynamic') return new Map()
  let remembered = trained
  const forward = (length: number): number | undefined => {
    remembered = rememberedLength(remembered, length, trained)
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
