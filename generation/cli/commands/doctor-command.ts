import { Command } from 'commander'
import type { Diagnosis } from '../../../lib/engines/doctor.js'

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`

/** A diagnosis as lines for a person: what is used, on what, and what is wrong. */
export const renderDiagnosis = ({
  engine,
  native,
  kernels,
  node,
  cpu,
  threads,
  gpus,
  memory,
  cache,
  issues
}: Diagnosis): string => {
  const rows: ReadonlyArray<readonly [string, string]> = [
    ['engine', engine ? `${engine.name} (${engine.why})` : 'none'],
    ['version', engine ? `${engine.name === 'native' ? 'TensorFlow' : 'TensorFlow.js'} ${engine.version}` : '-'],
    ['devices', engine?.devices.join(', ') ?? '-'],
    ['native', `${native.state}${native.variant ? `, ${native.variant} build` : ''}${native.folder ? `, ${native.folder}` : ''}`],
    ['kernels', kernels.join(' ') || 'none: compositions of TensorFlow’s ops'],
    ['node', `${node.version}${node.supported ? '' : ' (too old)'}`],
    ['processor', `${cpu.model}, ${cpu.cores} cores`],
    ['features', cpu.features.join(' ') || '-'],
    ['threads', `${threads.intraOp} (TF_NUM_INTRAOP_THREADS), ${threads.openMp} (OMP_NUM_THREADS)`],
    ['gpu', gpus.join(', ') || 'none'],
    ['memory', `${gigabytes(memory.total)}, ${gigabytes(memory.free)} free`],
    ['cache', `${cache.folder}, ${gigabytes(cache.bytes)}`]
  ]
  const facts = rows.map(([name, value]) => `${name.padEnd(10)}${value}`)
  const wrong = issues.map(({ message, mend }) => `error     ${message}${message.includes(String(mend)) ? '' : ` (\`${mend}\`)`}`)
  return [...facts, ...(wrong.length > 0 ? wrong : ['errors    none'])].join('\n')
}

interface DoctorFlags {
  readonly json?: true
  readonly verify?: true
}

/** `internvl doctor`: exit code 1 when something is wrong. */
export const doctorCommand = (): Command =>
  new Command('doctor')
    .description('say which engine runs, on what, and how to mend what is wrong')
    .option('--verify', "check the engine's files by their hashes")
    .option('--json', 'the diagnosis as JSON')
    .action(async ({ json, verify }: DoctorFlags) => {
      const { diagnose } = await import('../../../lib/engines/doctor.js') // TensorFlow.js takes a while to load
      const diagnosis = await diagnose({ verify: verify === true })
      console.log(json ? JSON.stringify(diagnosis, null, 2) : renderDiagnosis(diagnosis))
      if (diagnosis.issues.length > 0) process.exitCode = 1
    })
