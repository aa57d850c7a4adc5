import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type { NonEmptyArray } from 'fp-ts/lib/NonEmptyArray.js'
import { type Issues, invalid } from '../../error.js'

/** The TensorFlow release of the native engine. Its wheels are pinned below by hash, so every user runs the tested build. */
export const tensorflowVersion = '2.18.0'

/** A pinned TensorFlow wheel; `bytes` is its size, for the progress bar and the disk check. */
export interface Wheel {
  readonly name: string
  readonly version: string
  readonly tag: string
  readonly sha256: string
  readonly bytes: number
}

/** The facts about a machine that decide which build it gets. */
export interface Machine {
  /** `linux-x64`, `darwin-arm64`, `linux-x64-musl`, … */
  readonly platform: string
  readonly hasGpu: boolean
  readonly hasAvx: boolean
  /** `INTERNVL_CUDA`: `1` takes the CUDA build without looking for a GPU, `0` never takes it. */
  readonly cuda?: string | undefined
}

/** One build of the native engine: its folder's name below the cache, its TensorFlow wheel and, for CUDA, NVIDIA's wheels. */
export interface Plan {
  readonly folder: string
  readonly variant: 'cpu' | 'cuda'
  readonly platform: string
  readonly wheel: Wheel
  readonly libraries: readonly [framework: string, tensorflow: string]
  /** NVIDIA's wheels that the build may install, `name==version` to SHA-256; empty for the CPU. */
  readonly nvidiaWheels: Readonly<Record<string, string>>
  /** Approximate total size of NVIDIA's wheels. */
  readonly nvidiaBytes: number
  /** pip's platform tags of NVIDIA's wheels. */
  readonly nvidiaTags: readonly string[]
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

/** Wheels of TensorFlow's extra `and-cuda` (12). Source: as above, on 2026-11-28. */
const nvidiaWheels: Plan['nvidiaWheels'] = {
  'nvidia-cublas-cu12==12.5.3.2': 'ca070ad70e9fa6654084575d01bd001f30cc4665e33d4bb9fc8e0f321caa034b',
  'nvidia-cuda-cupti-cu12==12.5.82': 'bde77a5feb66752ec61db2adfe47f56b941842825b4c7e2068aff27c9d107953',
  'nvidia-cuda-nvcc-cu12==12.5.82': 'b03e545b8e8c3ce7ebcd7fc44063180ff52ff01d064ece2127ed90a04ef12cd0',
  'nvidia-cuda-nvrtc-cu12==12.5.82': '3dbd97b0104b4bfbc3c4f8c79cd2496307c89c43c29a9f83125f1d76296ff3fd',
  'nvidia-cuda-runtime-cu12==12.5.82': '3e79a060e126df40fd3a068f3f787eb000fa51b251ec6cd97d09579632687115',
  'nvidia-cudnn-cu12==9.3.0.75': '9ad9c6929ebb5295eb4a1728024666d1c88283373e265a0c5c883e6f9d5cd76d',
  'nvidia-cufft-cu12==11.2.3.61': '9a6e8df162585750f61983a638104a48c756aa13f9f48e19ab079b38e3c828b8',
  'nvidia-curand-cu12==10.3.6.82': '2823fb27de4e44dbb22394a6adf53aa6e1b013aca0f8c22867d1cfae58405536',
  'nvidia-cusolver-cu12==11.6.3.83': '93cfafacde4428b71778eeb092ec615a02a3d05404da1bcf91c53e3fa1bce42b',
  'nvidia-cusparse-cu12==12.5.1.3': '016df8e993c437e8301e62739f01775cba988fd5253cd4c64173f8e8d2f8e752',
  'nvidia-nccl-cu12==2.21.5': '8579076d30a8c24988834445f8d633c697d42397e92ffc3f63fa26766d25e0a0',
  'nvidia-nvjitlink-cu12==12.5.82': 'f9b37bc5c8cf7509665cb6ada5aaa0ce65618f2332b7d3e78e9790511f111212'
}

/** Platforms with a native engine. */
export const nativePlatforms: readonly string[] = Object.keys(wheels)

/** Whether TensorFlow publishes a CUDA build for a platform. */
export const hasCudaBuild = (platform: string): boolean => wheels[platform]?.cuda !== undefined

const unsupported = (platform: string, reason: string): E.Either<Issues, never> =>
  invalid('UnsupportedPlatform', `no native engine for this machine: ${reason}; the wasm engine runs everywhere`, { platform })

const libraries = (platform: string): Plan['libraries'] =>
  platform.startsWith('darwin')
    ? ['libtensorflow_framework.2.dylib', 'libtensorflow_cc.2.dylib']
    : ['libtensorflow_framework.so.2', 'libtensorflow_cc.so.2']

const nvidia = (variant: Plan['variant']): Pick<Plan, 'nvidiaWheels' | 'nvidiaBytes' | 'nvidiaTags'> =>
  variant === 'cpu'
    ? { nvidiaWheels: {}, nvidiaBytes: 0, nvidiaTags: [] }
    : {
        nvidiaWheels,
        nvidiaBytes: 1_809_212_255,
        nvidiaTags: ['manylinux_2_17_x86_64', 'manylinux2014_x86_64', 'manylinux1_x86_64']
      }

/** The build of TensorFlow for a machine: CUDA where it has a GPU, else the CPU's; or the reason why there is none. */
export const planSetup = ({ platform, hasGpu, hasAvx, cuda }: Machine): E.Either<Issues, Plan> => {
  const builds = wheels[platform]
  if (!builds) {
    const published = nativePlatforms.join(', ')
    return unsupported(platform, `TensorFlow ${tensorflowVersion} is published for ${published}, not for ${platform}`)
  }
  if (platform === 'linux-x64' && !hasAvx) return unsupported(platform, 'its processor has no AVX')
  if (cuda !== undefined && !/^[01]?$/.test(cuda)) {
    const fields = { expected: ['0', '1'], actual: cuda, fix: 'unset INTERNVL_CUDA' }
    return invalid('UnknownSetting', `INTERNVL_CUDA=${cuda}: expected 0 or 1`, fields)
  }
  if (cuda === '1' && !builds.cuda) return unsupported(platform, `INTERNVL_CUDA=1, but there is no CUDA build for ${platform}`)
  const variant = cuda !== '0' && (cuda === '1' || hasGpu) && builds.cuda ? 'cuda' : 'cpu'
  const folder = `tensorflow-${tensorflowVersion}-${variant}-${platform}-napi8`
  const tensorflow = builds[variant] as Wheel
  return E.right({ folder, variant, platform, wheel: tensorflow, libraries: libraries(platform), ...nvidia(variant) })
}

/** The builds that a machine can run, the best first: the CPU build follows a CUDA build. */
export const usablePlans = (machine: Machine): E.Either<Issues, NonEmptyArray<Plan>> =>
  pipe(
    planSetup(machine),
    E.chain((best) =>
      best.variant === 'cpu'
        ? E.right<Issues, NonEmptyArray<Plan>>([best])
        : pipe(
            planSetup({ ...machine, hasGpu: false, cuda: '0' }),
            E.map((cpu): NonEmptyArray<Plan> => [best, cpu])
          )
    )
  )
