import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { ContextJob, ContextSteps } from './measure/context-steps.js'
import type { Job, Measured } from './measure/measure.js'
import { transformersDtype } from './measure/precisions.js'
import type { Profile } from './measure/profile.js'
import type { TrainJob } from './measure/training-steps.js'
import { peftPython, python } from './peers/python.js'

const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** Runs a program and returns its standard output. Errors: a `RangeError` with the last lines of its standard error. */
export const output = (command: string, args: readonly string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    const texts = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => {
        texts[name] += text
      })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(texts.stdout)
      const last = texts.stderr.trim().split('\n').slice(-12).join('\n')
      const ended =
        signal === 'SIGKILL' ? 'the process was killed; probably out of memory' : `the process ended with ${code ?? signal}`
      reject(new RangeError(last || `${command}: ${ended}`))
    })
  })

/** The last line of a program's standard output, parsed as JSON. */
const lastLine = async <A>(command: string, args: readonly string[]): Promise<A> =>
  JSON.parse((await output(command, args)).trim().split('\n').at(-1)!)

const child = (what: 'measure' | 'profile' | 'train' | 'context', job: Job | TrainJob | ContextJob) => [
  '--import',
  'tsx',
  pathOf('measure/child.ts'),
  what,
  JSON.stringify(job)
]

/** Measures this project in a separate process. */
export const ours = (job: Job): Promise<Measured> => lastLine(process.execPath, child('measure', job))

/** Profiles this project in a separate process. */
export const profiled = (job: Job): Promise<Profile> => lastLine(process.execPath, child('profile', job))

/** Measures decoding steps of this project after a short and a long prompt, in turn in one process. */
export const contextSteps = (job: ContextJob): Promise<ContextSteps> => lastLine(process.execPath, child('context', job))

/** Measures Transformers, in the type that the job's precision is compared with. */
export const transformers = ({ checkpoint, precision, kind, size, newTokens, runs }: Job): Promise<Measured> =>
  lastLine(python(), [
    ...[pathOf('peers/bench_transformers.py'), '--checkpoint', checkpoint, '--dtype', transformersDtype(precision)],
    ...['--new-tokens', `${newTokens}`, '--runs', `${runs}`, ...(kind === 'load' ? ['--load'] : [`--${kind}`, `${size}`])]
  ])

/** Measures training steps of this project. */
export const oursTraining = (job: TrainJob): Promise<Measured> => lastLine(process.execPath, child('train', job))

/** Measures the same steps with PEFT, which starts from the adapter that `oursTraining` wrote, or with PyTorch alone for all weights. */
export const peftTraining = ({ checkpoint, size, steps, adapter }: TrainJob): Promise<Measured> =>
  lastLine(peftPython(), [
    ...[pathOf('peers/bench_peft.py'), '--checkpoint', checkpoint, ...(adapter === undefined ? [] : ['--adapter', adapter])],
    ...['--batch', `${size}`, '--steps', `${steps}`]
  ])

/** Measures a part of a checkpoint with OpenVINO, by the command of `openvinoCommand`. */
export const openvino = ([command, args]: readonly [command: string, args: readonly string[]]): Promise<Measured> =>
  lastLine(command, args)

/** Measures llama.cpp on a GGUF file; `modules` is the folder in which node-llama-cpp is installed. */
export const llamaCpp = (modules: string, file: string, dtype: string, { size, newTokens, runs }: Job): Promise<Measured> =>
  lastLine(process.execPath, [
    ...[
      pathOf('peers/bench_llamacpp.mjs'),
      modules,
      file,
      dtype,
      `${size}`,
      `${newTokens}`,
      `${runs}`,
      `${availableParallelism()}`
    ]
  ])
