import { enums, kernelSettings } from './schema.js'

/** Arithmetic of a matrix product with many rows. */
export type GemmKind = Exclude<(typeof enums.GemmKind)[number], 'unset'>

/** Format of a weight, by its name in C++. */
export type WeightFormat = (typeof enums.Format)[number]

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

/** The kinds for weights in a format. */
export const gemmKindsFor = (format: WeightFormat): readonly GemmKind[] => {
  if (format === 'float32') return gemmKinds().filter((kind) => kind === 'float32')
  return gemmKinds().filter((kind) => !kind.startsWith('int') || format.startsWith('int'))
}

/** The kind that is set for a format, or its only kind; undefined without the library. */
export const gemmKindOf = (format: WeightFormat): GemmKind | undefined => {
  const number = loaded?.settings[kernelSettings.indexOf(format)]
  const kinds = gemmKindsFor(format)
  return number ? (enums.GemmKind[number] as GemmKind) : kinds.length === 1 ? kinds[0] : undefined
}

/** Settings of the library; a setting that is not given stays as it is. */
export interface KernelSettings {
  /** Activations are neither quantized nor rounded to bfloat16. */
  readonly float32Activations?: boolean
  /** The arithmetic of matrix products with many rows and weights in a format. */
  readonly gemmKinds?: { readonly [F in WeightFormat]?: GemmKind }
}

/** Changes settings of the loaded library; without a library there is nothing to set. */
export const changeKernelSettings = ({ float32Activations, gemmKinds = {} }: KernelSettings): void => {
  if (!loaded) return
  const values = loaded.settings
  if (float32Activations !== undefined) values[0] = Number(float32Activations)
  for (const [format, kind] of Object.entries(gemmKinds))
    values[kernelSettings.indexOf(format as WeightFormat)] = enums.GemmKind.indexOf(kind)
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
