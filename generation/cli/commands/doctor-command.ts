import { Command, Option } from 'commander'
import type { Diagnosis } from '../../../lib/engines/doctor.js'
import type { GemmSpeeds } from '../../../lib/engines/kernels/gemm-choice.js'
import type { Issue } from '../../../lib/error.js'

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`

const renderIssue = ({ message, fix }: Issue): string =>
  `error     ${message}${message.includes(String(fix)) ? '' : ` (\`${fix}\`)`}`

/** ` (float32 120 GFLOP/s, int16 210)`, or nothing without a measurement. */
const renderSpeeds = (gflops: GemmSpeeds): string => {
  const [first, ...others] = Object.entries(gflops)
  return first ? ` (${[`${first.join(' ')} GFLOP/s`, ...others.map((other) => other.join(' '))].join(', ')})` : ''
}

/** A diagnosis as lines of text: engine, machine and errors. */
export const renderDiagnosis = ({
  engine,
  native,
  kernels,
  usesTensorflowOps,
  gemm,
  node,
  cpu,
  threads,
  gpus,
  gpuChoice,
  memory,
  cache,
  issues
}: Diagnosis): string => {
  const rows: ReadonlyArray<readonly [string, string]> = [
    ['engine', engine ? `${engine.name} (${engine.reason})` : 'none'],
    ['version', engine ? `${engine.name === 'native' ? 'TensorFlow' : 'TensorFlow.js'} ${engine.version}` : '-'],
    ['devices', engine?.devices.join(', ') ?? '-'],
    ['native', `${native.state}${native.variant ? `, ${native.variant} build` : ''}${native.folder ? `, ${native.folder}` : ''}`],
    [
      'kernels',
      `${usesTensorflowOps ? 'of TensorFlow’s ops: ' : ''}${kernels.join(' ') || 'none: operations are composed of TensorFlow’s ops'}`
    ],
    ...gemm.map(
      ({ product, kind, gflops }, i) =>
        [i ? '' : 'products', `${product}${product === 'attention' ? '' : ' weights'}: ${kind}${renderSpeeds(gflops)}`] as const
    ),
    ['node', `${node.version}${node.supported ? '' : ' (too old)'}`],
    ['processor', `${cpu.model}, ${cpu.cores} cores`],
    ['features', cpu.features.join(' ') || '-'],
    ['threads', `${threads.intraOp} (TF_NUM_INTRAOP_THREADS), ${threads.openMp} (OMP_NUM_THREADS)`],
    ['gpu', `${gpus.join('; ') || 'none'}; ${gpuChoice}`],
    ['memory', `${gigabytes(memory.total)}, ${gigabytes(memory.free)} free`],
    ['cache', `${cache.folder}, ${gigabytes(cache.bytes)}`]
  ]
  const facts = rows.map(([name, value]) => `${name.padEnd(10)}${value}`)
  return [...facts, ...(issues.length > 0 ? issues.map(renderIssue) : ['errors    none'])].join('\n')
}

interface DoctorFlags {
  readonly json?: true
  readonly verify: boolean
}

/** `internvl doctor`: exit code 1 where something is wrong. */
export const doctorCommand = (): Command =>
  new Command('doctor')
    .description('print which engine runs, on which machine, and how to fix what is wrong')
    .option('--no-verify', "compare only sizes and stamps of the engine's files, not their hashes")
    .addOption(new Option('--verify', 'the default').hideHelp())
    .option('--json', 'print the diagnosis as JSON')
    .action(async ({ json, verify }: DoctorFlags) => {
      const { diagnose } = await import('../../../lib/engines/doctor.js') // TensorFlow.js takes a while to load
      const diagnosis = await diagnose({ verify })
      console.log(json ? JSON.stringify(diagnosis, null, 2) : renderDiagnosis(diagnosis))
      if (diagnosis.issues.length > 0) process.exitCode = 1
    })
