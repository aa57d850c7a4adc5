// Run by wrong-calls.test.ts in a process of its own: makes wrong calls of the kernels and prints a line of JSON at its end.
import { mkdtempSync, openSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { selectEngine } from '../../../../lib/engines/index.js'
import { kernelsLibrary } from '../../../../lib/engines/install/compile-kernels.js'
import { kernelsInUse } from '../../../../lib/engines/kernels/register.js'
import { type Kernel, type KernelName, kernels, parts } from '../../../../lib/engines/kernels/schema.js'
import { compileSignature, newAxes } from '../../../../lib/engines/kernels/signature.js'
import { attr, nativeBackend } from '../../../../lib/engines/native.js'
import { runKernel } from '../../../../lib/ops/kernel.js'
import { ShapeError } from '../../../../lib/shape.js'
import { tf } from '../../../../lib/tf.js'
import { type KernelCall, randomOf, sampleCall, spoil } from './kernel-calls.js'

const [mode, seed, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])]
await selectEngine({ engine: 'native' })
const found = new Set(kernelsInUse())
const names = (Object.keys(kernels) as KernelName[]).filter((name) => found.has(name))
const path = join(mkdtempSync(join(tmpdir(), 'internvl-')), 'numbers')
writeFileSync(path, new Uint8Array(4096))
const file = openSync(path, 'r')
const random = randomOf(seed)

/** Errors that depend on the values of a tensor or on a file. */
const expectedMessage = /labels: |too short, or cannot be read|too many columns/

const read = (results: tf.Tensor | tf.Tensor[]): void => {
  for (const y of [results].flat()) y.dataSync()
}

/** The call by way of the registry, which checks it in TypeScript. */
const checked = ({ kernel, inputs, attributes }: KernelCall): void => read(runKernel(kernel, inputs, attributes))

/** The call of the operator itself: wrong parameters bypass the checks of TypeScript. */
const unchecked = (valid: KernelCall, wrong: KernelCall): void => {
  const native = nativeBackend()!
  const { parameters } = createRequire(import.meta.url)(kernelsLibrary()) as { readonly parameters: Float64Array }
  const schema: Kernel = kernels[valid.kernel]
  const [tensors, axes] = [[] as tf.TensorInfo[], newAxes()]
  const end = compileSignature(valid.kernel, schema).write(valid.inputs, valid.attributes, parameters, 0, tensors, axes)
  if (schema.part)
    compileSignature(valid.kernel, parts[schema.part]).write(valid.inputs, valid.attributes, parameters, end, tensors, axes)
  if (random.happens(0.4)) parameters[random.below(12)] = random.pick([-1, 0, 1, 2, 9, 0.5, 2 ** 40, Number.NaN])
  const given = random.happens(0.7) ? Object.values(wrong.inputs) : tensors
  const list = random.happens(0.2) ? given.slice(1) : given
  const types = list.map(({ dtype }) => (dtype === 'int32' ? 'int32' : 'float32'))
  read(
    native.executeOp(
      `Internvl${schema.operator ?? valid.kernel}`,
      [attr.type('T', types)],
      list,
      Object.keys(schema.outputs).length
    )
  )
}

const outcomes = { given: 0, refused: 0, otherwise: [] as string[], valid: 0 }
for (let i = 0; i < count && names.length > 0; i++)
  tf.tidy(() => {
    const kernel = names[i % names.length]!
    const valid = sampleCall(kernel, parts, random, file)
    if (mode === 'checked' && i < 4 * names.length) {
      try {
        checked(valid)
        outcomes.valid++
      } catch (error) {
        if (!expectedMessage.test(String(error))) outcomes.otherwise.push(`valid ${kernel}: ${error}`)
      }
    }
    const wrong = spoil(valid, random)
    try {
      if (mode === 'checked') checked(wrong)
      else if (kernel === 'DecoderLayers')
        return // the static part holds addresses, which only TypeScript writes
      else unchecked(valid, wrong)
      outcomes.given++
    } catch (error) {
      const expected = error instanceof ShapeError || expectedMessage.test(String(error)) || mode === 'unchecked'
      if (expected) outcomes.refused++
      else outcomes.otherwise.push(`${kernel}: ${error}`)
    }
  })
console.log(JSON.stringify({ kernels: names.length, ...outcomes }))
