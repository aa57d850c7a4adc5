import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { type Command, errorLine, type ProcessOptions, runProcess } from './run-process.js'
import type { OnBytes } from './wheel.js'

/** Members of TensorFlow's wheel: its two libraries, and the headers of its C API that the addon includes. */
export const tensorflowMembers: readonly string[] = [
  'tensorflow/libtensorflow_cc.*',
  'tensorflow/libtensorflow_framework.*',
  'tensorflow/include/tensorflow/c/*.h',
  'tensorflow/include/tensorflow/core/platform/ctstring*.h',
  'tensorflow/include/*tsl/platform/ctstring*.h',
  'tensorflow/include/*tsl/c/*.h'
]

/** Members of NVIDIA's wheels: shared libraries, and the tools that compile kernels for a GPU newer than the build. */
export const nvidiaMembers: readonly string[] = [
  'nvidia/*.so',
  'nvidia/*.so.*',
  'nvidia/cuda_nvcc/bin/ptxas',
  'nvidia/cuda_nvcc/nvvm/libdevice/*'
]

// Python is there because pip is, and reads zip files of any size. The script prints "<bytes done> <total bytes>".
const unzip = `
import fnmatch, os, sys, zipfile
wheel, target, *patterns = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    members = [m for m in z.infolist() if any(fnmatch.fnmatchcase(m.filename, p) for p in patterns)]
    total, done = sum(m.file_size for m in members), 0
    for m in members:
        path = os.path.join(target, *m.filename.split('/'))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with z.open(m) as source, open(path, 'wb') as out:
            while chunk := source.read(1 << 22):
                out.write(chunk)
                done += len(chunk)
                print(done, total, flush=True)
        os.chmod(path, 0o755 if '/bin/' in path else 0o644)
`

const metadata = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z:
    print(z.read(next(n for n in z.namelist() if n.endswith('.dist-info/METADATA'))).decode())
`

const python = (
  program: Command,
  script: string,
  args: readonly string[],
  options: ProcessOptions
): TE.TaskEither<Issues, string> =>
  pipe(
    runProcess(program, ['-c', script, ...args], options),
    TE.mapLeft(
      (failed): Issues => [
        issue('UnpackFailed', `${args[0]}: Python could not unpack the wheel (${errorLine(failed)})`, { path: args[0] })
      ]
    )
  )

/** Unpacks the members of a wheel that match one of the patterns (`*` matches `/` too) below `target`. */
export const unpack = (
  program: Command,
  wheel: string,
  target: string,
  patterns: readonly string[],
  options: ProcessOptions,
  onBytes: OnBytes
) => {
  const onLine = (line: string): void => {
    const [done, total] = line.split(' ').map(Number)
    if (total) onBytes(done ?? 0, total)
  }
  return python(program, unzip, [wheel, target, ...patterns], { ...options, onLine })
}

/** NVIDIA's packages of the extra `and-cuda` in a wheel's metadata: `['nvidia-cublas-cu12==12.5.3.2', …]`. */
export const cudaRequirements = (text: string): readonly string[] =>
  [...text.matchAll(/^Requires-Dist: *(nvidia-[\w-]+) *\(?==([\w.]+)\)? *;.*extra *== *['"]and-cuda['"]/gm)].map(
    ([, name, version]) => `${name}==${version}`
  )

/** Reads the metadata of a wheel file and returns NVIDIA's packages, as `cudaRequirements` does. */
export const readCudaRequirements = (
  program: Command,
  wheel: string,
  options: ProcessOptions
): TE.TaskEither<Issues, readonly string[]> => pipe(python(program, metadata, [wheel], options), TE.map(cudaRequirements))
