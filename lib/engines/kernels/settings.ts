import { enums, kernelSettings } from './schema.js'

/** Arithmetic of a matrix product with many rows. */
export type GemmKind = Exclude<(typeof enums.GemmKind)[number], 'unset'>

/** Format of a weight, by its name in C++. */
export type WeightFormat = (typeof enums.Format)[number]

/** Products whose arithmetic can be chosen: of a matrix with weights in a format, or those of attention of many queries. */
export type Product = WeightFormat | 'attention'

/** The compiled library, as Node.js loads it. */
export interface Library {
  /** Memory in which an operator finds its parameters. */
  readonly parameters: Float64Array
  /** Memory in which the library finds its settings, in the order of `kernelSettings`. */
  readonly settings: Float64Array
  /** Names of the kinds that the processor can run, separated by spaces. */
  readonly gemmKinds: string
  /** `schemaVersion` of the schema that the library was compiled from. */
  readonly version: string
}

/** The loaded library. Module-level because Node.js loads an addon once per thread, and TensorFlow.js has one registry of kernels. */
let loaded: Library | undefined

/** Makes `library` the one whose settings the functions of this file read and write. */
export const useSettingsOf = (library: Library): void => {
  loaded = library
}

/** The kinds that the loaded library and the processor can run; none without the library. */
export const gemmKinds = (): readonly GemmKind[] => (loaded ? (loaded.gemmKinds.split(' ') as GemmKind[]) : [])

/** The kinds for a product. */
export const gemmKindsFor = (product: Product): readonly GemmKind[] => {
  if (product === 'float32') return gemmKinds().filter((kind) => kind === 'float32')
  if (product === 'attention')
    return gemmKinds().filter((kind) => kind === 'float32' || kind === 'amxBfloat16' || kind === 'int8')
  return gemmKinds().filter((kind) => !kind.startsWith('int') || product.startsWith('int'))
}

/** The kind that is set for a product, or its only kind; undefined without the library. */
export const gemmKindOf = (product: Product): GemmKind | undefined => {
  const number = loaded?.settings[kernelSettings.indexOf(product)]
  const kinds = gemmKindsFor(product)
  return number ? (enums.GemmKind[number] as GemmKind) : kinds.length === 1 ? kinds[0] : undefined
}

/** Settings of the library; a setting that is not given stays as it is. */
export interface KernelSettings {
  /** Activations are neither quantized nor rounded to bfloat16. */
  readonly float32Activations?: boolean
  /** The arithmetic of matrix products with many rows and weights in a format, and of attention of many queries. */
  readonly gemmKinds?: { readonly [P in Product]?: GemmKind }
}

/** Changes settings of the loaded library; without a library there is nothing to set. */
export const changeKernelSettings = ({ float32Activations, gemmKinds = {} }: KernelSettings): void => {
  if (!loaded) return
  const values = loaded.settings
  if (float32Activations !== undefined) values[0] = Number(float32Activations)
  for (const [product, kind] of Object.entries(gemmKinds))
    values[kernelSettings.indexOf(product as Product)] = enums.GemmKind.indexOf(kind)
}

/** Runs `f` with other settings of the library. `f` must be synchronous. */
export const withKernelSettings = <A>(settings: KernelSettings, f: () => A): A => {
  const before = loaded?.settings.slice()
  changeKernelSettings(settings)
  try {
    return f()
  } finally {
    if (before) loaded?.settings.set(before)
  }
}
