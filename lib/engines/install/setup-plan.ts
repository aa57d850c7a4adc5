import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type { NonEmptyArray } from 'fp-ts/lib/NonEmptyArray.js'
import { type Issues, issue } from '../../error.js'

/** The release whose library the native engine runs on. Its wheels are pinned below, so that what is compiled is what was tested. */
export const tensorflowVersion = '2.18.0'

/** A wheel as `pip download` gives it; `bytes` is its size, only for the progress bar. */
export interface Wheel {
  readonly name: string
  readonly version: string
  readonly tag: string
  readonly sha256: string
  readonly bytes: number
}

/** What the choice of a build depends on. */
export interface Machine {
  /** `linux-x64`, `darwin-arm64`, `linux-x64-musl`, … */
  readonly platform: string
  readonly hasGpu: boolean
  readonly hasAvx: boolean
  /** `INTERNVL_CUDA`: `1` takes the CUDA build without looking for a GPU, `0` never takes it. */
  readonly cuda?: string | undefined
}

/** What a set-up would install: the folder's name below the cache, the wheel, and whether NVIDIA's libraries go beside it. */
export interface Plan {
  readonly folder: string
  readonly variant: 'cpu' | 'cuda'
  readonly platform: string
  readonly wheel: Wheel
  readonly libraries: readonly [framework: string, tensorflow: string]
  /** Of the NVIDIA wheels that TensorFlow's metadata names: about how many bytes they are in all, and pip's tags for them. */
  readonly companionBytes: number
  readonly companionTags: readonly string[]
}

const wheel = (name: string, tag: string, bytes: number, sha256: string): Wheel => ({
  name,
  version: tensorflowVersion,
  tag,
  sha256,
  bytes
})

/** Source: the package index, read by `pip install --dry-run --report -` for CPython 3.11 on 2026-11-24. */
const wheels: Readonly<Record<string, Readonly<Partial<Record<Plan['variant'], Wheel>>>>> = {
  'linux-x64': {
    cpu: wheel(
      'tensorflow-cpu',
      'manylinux_2_17_x86_64',
      230_152_077,
      '089e71746960ea581dca53401f84b3b99c8537313e337a9e5dbf97036a936f7e'
    ),
    cuda: wheel(
      'tensorflow',
      'manylinux_2_17_x86_64',
      615_407_268,
      '70b8dd70fa3600bfce66ab529eebb804e1f9d7c863d2f71bc8fe9fc7a1ec3976'
    )
  },
  'linux-arm64': {
    cpu: wheel(
      'tensorflow',
      'manylinux_2_17_aarch64',
      231_839_918,
      '85f1e7369af6d329b117b52e86093cd1e0458dd5404bf5b665853f873dd00b48'
    )
  },
  'darwin-arm64': {
    cpu: wheel('tensorflow', 'macosx_12_0_arm64', 239_492_146, '453cb60638a02fd26316fb36c8cbcf1569d33671f17c658ca0cf2b4626f851e7')
  }
}

/** Platforms with a native engine. */
export const nativePlatforms: readonly string[] = Object.keys(wheels)

const refused = (platform: string, why: string): Issues => [
  issue('UnsupportedPlatform', `no native engine for this machine: ${why}; the wasm engine runs everywhere`, { platform })
]

const libraries = (platform: string): Plan['libraries'] =>
  platform.startsWith('darwin')
    ? ['libtensorflow_framework.2.dylib', 'libtensorflow_cc.2.dylib']
    : ['libtensorflow_framework.so.2', 'libtensorflow_cc.so.2']

/** Which build of TensorFlow this machine gets: CUDA where a GPU is at hand, else the CPU's; or why there is none. */
export const planSetup = ({ platform, hasGpu, hasAvx, cuda }: Machine): E.Either<Issues, Plan> => {
  const builds = wheels[platform]
  if (!builds)
    return E.left(
      refused(platform, `TensorFlow ${tensorflowVersion} is published for ${nativePlatforms.join(', ')}, not for ${platform}`)
    )
  if (platform === 'linux-x64' && !hasAvx) return E.left(refused(platform, 'its processor has no AVX'))
  if (cuda !== undefined && !/^[01]?$/.test(cuda))
    return E.left([
      issue('UnknownSetting', `INTERNVL_CUDA=${cuda}: expected 0 or 1`, {
        expected: ['0', '1'],
        actual: cuda,
        mend: 'unset INTERNVL_CUDA'
      })
    ])
  if (cuda === '1' && !builds.cuda)
    return E.left(refused(platform, `INTERNVL_CUDA=1, but there is no CUDA build for ${platform}`))
  const variant = cuda !== '0' && (cuda === '1' || hasGpu) && builds.cuda ? 'cuda' : 'cpu'
  const companions =
    variant === 'cuda'
      ? { companionBytes: 1_809_212_255, companionTags: ['manylinux_2_17_x86_64', 'manylinux2014_x86_64', 'manylinux1_x86_64'] }
      : { companionBytes: 0, companionTags: [] }
  const folder = `tensorflow-${tensorflowVersion}-${variant}-${platform}-napi8`
  return E.right({ folder, variant, platform, wheel: builds[variant] as Wheel, libraries: libraries(platform), ...companions })
}

/** The builds that this machine can run, the best first: behind a CUDA build stands the CPU's. */
export const usablePlans = (machine: Machine): E.Either<Issues, NonEmptyArray<Plan>> =>
  pipe(
    planSetup(machine),
    E.map((best): NonEmptyArray<Plan> => {
      const plain = best.variant === 'cuda' ? planSetup({ ...machine, hasGpu: false, cuda: '0' }) : E.left(undefined)
      return E.isRight(plain) ? [best, plain.right] : [best]
    })
  )
