import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { demoModel, load } from '../../generation/checkpoint/load.js'
import { generateAll } from '../../generation/decoding/generate.js'
import { findGpus } from '../../lib/engines/gpus.js'
import { tf } from '../../lib/tf.js'
import { findCases } from '../conformance/case.js'
import { modelCaseChecks } from '../conformance/model-case.js'
import type { Check } from '../conformance/outcome.js'
import { type CoarsePrecision, precisionCaseChecks } from '../conformance/precision-case.js'
import type { Section } from './check-section.js'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Settings of the parts. */
export interface CheckOptions {
  /** Folder of reference cases. */
  readonly cases: string
  /** Folder of the images that the cases name. */
  readonly images: string
  /** Checkpoint whose speed is measured. */
  readonly checkpoint: string
  /** Folder of the results. */
  readonly out: string
  /** Whether Transformers and PEFT are measured in turn. */
  readonly compare: boolean
  /** Number of generations in the search for leaks. */
  readonly generations: number
  /** Scenes of the demo evaluation. */
  readonly scenes: number
}

/** Runs a script of this repository; rejects with its last lines. Its output goes to standard error. */
const runScript = (script: string, args: readonly string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', 'tsx', join(root, script), ...args], { cwd: root })
    let [output, errors] = ['', '']
    child.stdout.on('data', (data) => {
      output += data
    })
    child.stderr.on('data', (data) => {
      errors += data
    })
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve(output) : reject(new Error(errors.trim().split('\n').slice(-3).join(' ')))))
  })

const summaryOf = (checks: readonly Check[]): Awaited<ReturnType<Section['run']>> => {
  const failures = checks.flatMap(({ name, outcome }) => (outcome._tag === 'Failed' ? [`${name}: ${outcome.message}`] : []))
  if (failures.length > 0 || checks.length === 0)
    throw new Error(`${failures.length} of ${checks.length} checks failed: ${failures.slice(0, 3).join('; ')}`)
  const distances = checks.flatMap(({ distance }) => distance ?? [])
  const most = Math.max(0, ...distances)
  const distance = distances.length > 0 ? `, logits at most ${(100 * most).toFixed(2)} % away` : ''
  return { summary: `${checks.length} checks passed${distance}`, details: { checks: checks.length, distances } }
}

/** The reference cases: every value in float32, logits in a coarser precision. */
export const conformance = ({ cases, images }: CheckOptions, precision?: CoarsePrecision): Section => ({
  name: `conformance in ${precision ?? 'float32'}`,
  run: async () => {
    const checks: Check[] = []
    for (const one of findCases(cases)) {
      if (precision) checks.push(...(await precisionCaseChecks(one, precision)))
      else checks.push(...(await modelCaseChecks(one, images)))
    }
    return summaryOf(checks)
  }
})

/** Accuracy of the demo model. */
export const demoEvaluation = ({ scenes }: CheckOptions): Section => ({
  name: 'demo evaluation',
  run: async () => {
    const output = await runScript('generation/cli/main.ts', ['demo-eval', '--count', String(scenes)])
    return { summary: output.trim().split('\n').join(', ') }
  }
})

/** The most memory of the GPUs in MiB until `stop`, sampled twice a second; 0 without a GPU. */
const peakGpuMemory = () => {
  let most = 0
  const sample = (): void => {
    most = Math.max(most, ...findGpus().map(({ usedMemory }) => usedMemory))
  }
  const timer = findGpus().length > 0 ? setInterval(sample, 500) : undefined
  return { most: () => most, stop: () => clearInterval(timer) }
}

/** Figures of `npm run bench`, in turn with Transformers or PEFT where `compare` says so. */
export const bench = ({ checkpoint, out, compare }: CheckOptions, name: string, args: readonly string[]): Section => ({
  name,
  run: async () => {
    const json = join(out, `${name.replaceAll(/\W+/g, '-')}.json`)
    const flags = ['--checkpoint', checkpoint, '--json', json, ...(compare ? ['--compare'] : []), ...args]
    const peak = peakGpuMemory()
    const table = await runScript('properties/bench/bench-command.ts', flags).finally(peak.stop)
    const lines = table.split('\n').filter((line) => line.trim() !== '')
    const memory = peak.most() > 0 ? [`GPU memory at most ${peak.most()} MiB, of all processes`] : []
    return { summary: [...lines, ...memory].join('<br>'), details: JSON.parse(await readFile(json, 'utf8')) }
  }
})

/** Numbers of tensors of TensorFlow.js and of TensorFlow, and the memory of the GPUs in MiB. */
const memoryNow = () => {
  const { binding } = tf.engine().findBackend('tensorflow') as unknown as { binding: { getNumOfTensors(): number } }
  const gpu = findGpus().reduce((sum, { usedMemory }) => sum + usedMemory, 0)
  return { tensors: tf.memory().numTensors, handles: binding.getNumOfTensors(), gpu }
}

/** Memory on a GPU that TensorFlow's allocator may add between two equal generations, in MiB. */
const allowedGrowth = 64

/** Generates again and again: neither tensors nor GPU memory may grow. */
export const leaks = ({ generations }: CheckOptions): Section => ({
  name: `leaks over ${generations} generations`,
  run: async () => {
    const internvl = await load(demoModel, { dtype: 'bfloat16' })
    const generate = async () => {
      const inputIds = tf.tensor2d([[5, 6, 7, 8]], [1, 4], 'int32')
      const attentionMask = tf.onesLike(inputIds)
      await generateAll(internvl.model, { inputIds, attentionMask }, { maxNewTokens: 8, minNewTokens: 8 })
      tf.dispose([inputIds, attentionMask])
    }
    for (let i = 0; i < 5; i++) await generate()
    const before = memoryNow()
    for (let i = 0; i < generations; i++) await generate()
    const after = memoryNow()
    internvl.dispose()
    const summary = `tensors ${before.tensors} to ${after.tensors}, handles ${before.handles} to ${after.handles}, GPU ${before.gpu} to ${after.gpu} MiB`
    if (after.tensors > before.tensors || after.handles > before.handles || after.gpu > before.gpu + allowedGrowth)
      throw new Error(summary)
    return { summary, details: { before, after } }
  }
})
