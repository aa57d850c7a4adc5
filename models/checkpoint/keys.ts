/**
 * A rule of a key map: a key in a checkpoint file, and in the module tree. `*` stands for an index, `**` for the rest of the key.
 * Several tree keys: the file fuses these tensors along axis 0, by `fused`.
 */
export interface KeyRule {
  readonly file: string
  readonly tree: string | readonly string[]
  readonly fused?: 'thirds' | 'groups'
}

/** The names that a checkpoint layout has for some part of the module tree. */
export interface KeyTemplates {
  readonly rules: readonly KeyRule[]
  /** Templates of file keys that only this group has; they identify a layout. */
  readonly recognizedBy: readonly string[]
}

/** Key templates with a name for messages. */
export interface KeyGroup extends KeyTemplates {
  readonly name: string
}

/**
 * A checkpoint layout, by the names of its tensors. `hf`: saved by Transformers since 4.52, the keys of the module tree;
 * `hf-first`: `-hf` as first published; `original`: OpenGVLab's names; `original-<decoder>`: the same for a decoder that has
 * names of its own; `hf-<model type>`: Transformers' names for a model type of its own.
 */
export type Layout = 'hf' | `hf-${string}` | 'original' | `original-${string}`

/** The key groups of each layout. A checkpoint of the layout has keys of the first group, and of no group of another layout. */
export type Layouts = Readonly<Partial<Record<Layout, readonly KeyGroup[]>>>

/** Buffers that older software stored beside the parameters; they are computed, never read. */
export const isBuffer = (key: string): boolean =>
  /(^|\.)(rotary_emb\.inv_freq|rotary_emb\.(cos|sin)_cached|position_ids)$/.test(key)

/** Side of a key: a checkpoint file, or the module tree. */
export type KeySide = 'file' | 'tree'

/** The keys of a rule on one side; only those of the tree may be several. */
export const keysOf = (rule: KeyRule, side: KeySide): readonly string[] => [rule[side]].flat()

const compiled = new Map<string, RegExp>() // a cache of `templateRegExp`: a checkpoint has thousands of keys and few templates
const templateRegExp = (template: string): RegExp => {
  const known = compiled.get(template)
  if (known) return known
  const made = new RegExp(`^${template.replaceAll('.', '\\.').replaceAll(/\*\*?/g, (s) => (s === '*' ? '(\\d+)' : '(.+)'))}$`)
  compiled.set(template, made)
  return made
}

/** The values of `*` and `**` in a key, or null where the key does not match the template. */
export const match = (template: string, key: string): readonly string[] | null =>
  templateRegExp(template).exec(key)?.slice(1) ?? null

/** The key of a template, with its wildcards filled in order. */
export const fillIn = (template: string, values: readonly string[]): string => {
  let i = 0
  return template.replaceAll(/\*\*?/g, () => values[i++]!)
}
