import { existsSync } from 'node:fs'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type InternVLCheckpoint, load } from '../../generation/checkpoint/load.js'
import { generateAll } from '../../generation/decoding/generate.js'
import { generationConfig } from '../../generation/decoding/generation-config.js'
import { valueAndGrad } from '../../lib/autograd/grad.js'
import { getOrThrow, type Issues, orThrow } from '../../lib/error.js'
import { causalLoss } from '../../lib/nn/losses/cross-entropy.js'
import { adamW, clipByGlobalNorm } from '../../lib/optim/adamw.js'
import { disposeParams, mapParams, namedParameters } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { visionTower } from '../../models/internvl/vision.js'
import { readImage } from '../../processors/image/image.js'
import { resize } from '../../processors/image/resize.js'
import type { ModelInputs } from '../../processors/model-inputs.js'
import type { Messages } from '../../processors/text/messages.js'
import { type Case, type Numbers, readJson, readNumbers, rowOf } from './case.js'
import { type Check, expectClose, expectEqual, expectThat, failed, type Outcome, skipped } from './outcome.js'
import {
  asReferenced,
  type CaseInput,
  layoutsOf,
  readInputs,
  type StoredInput,
  storedInputs,
  tensor
} from './reference-inputs.js'

/** The data for the checks of one input. */
export interface Context extends StoredInput {
  readonly prefix: string
  readonly images: string
  readonly internvl: InternVLCheckpoint
}

/** Tolerances, relative to the largest reference value. Source: the reference's README. */
export const tolerance = { states: 1e-3, loss: 1e-4, gradientNorm: 2e-3, smallGradientNorm: 1e-5, trainingLoss: 1e-3 }

export const numbers = (t: tf.Tensor): Numbers => ({ shape: t.shape, values: Float32Array.from(t.dataSync()) })
const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
const camelKeys = (record: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [camel(key), value]))

/** The case's messages, with image paths in `images`; video frames are first resized as in the reference. */
const messagesOf = async ({ input, images }: Context): Promise<readonly Messages[]> => {
  const frame = async (name: string) => {
    const image = await orThrow(readImage(join(images, name)))
    const [width, height] = input.video_frame_size!
    return { ...resize(image, { width, height }), channels: 3 as const }
  }
  const item = async (content: Record<string, unknown>) => {
    if (content.type === 'image') return { type: 'image', path: join(images, String(content.image)) }
    if (content.type !== 'video') return content
    return { type: 'video', frames: await Promise.all((content.frames as readonly string[]).map(frame)) }
  }
  const turn = async ({ role, content }: CaseInput['messages'][number][number]) => ({
    role,
    content: typeof content === 'string' ? content : await Promise.all(content.map(item))
  })
  return Promise.all(input.messages.map((row) => Promise.all(row.map(turn)))) as unknown as Promise<readonly Messages[]>
}

/** Frames may be 2 levels of 255 apart, 99.9 % of the values within 1. Source: the reference's README. */
const expectFrames = (actual: Numbers, expected: Numbers, std: readonly number[]): Outcome => {
  const plane = expected.values.length / expected.shape[0]! / 3
  const levels = Array.from(expected.values, (x, i) => Math.abs(actual.values[i]! - x) * std[Math.floor(i / plane) % 3]! * 255)
  const [most, beyond] = [levels.reduce((a, b) => Math.max(a, b), 0), levels.filter((level) => level > 1.001).length]
  return expectThat(
    most <= 2.001 && beyond <= levels.length / 1000,
    () => `frames differ by ${most.toFixed(2)} levels, ${beyond} of ${levels.length} values by more than 1`
  )
}

export const processorChecks = (
  { prefix, internvl, input, stored }: Context,
  prepared: E.Either<unknown, ModelInputs>
): readonly Check[] => {
  const check = (value: string, outcome: Outcome): Check => ({ name: `${prefix}: ${value}`, outcome })
  if (E.isLeft(prepared)) return [check('processor', failed(JSON.stringify(prepared.left)))]
  const { inputIds, attentionMask, pixelValues, prompts } = prepared.right
  const integers = (t: tf.Tensor2D, key: string) =>
    expectEqual(
      t.arraySync(),
      t.arraySync().map((_, i) => rowOf(stored.get(key)!, i))
    )
  const pixels = stored.get('pixel_values')
  const pixelOutcome = (): Outcome => {
    if (!pixels || !pixelValues)
      return expectThat(!pixels === !pixelValues, () => `pixel values ${pixelValues ? 'given' : 'missing'}`)
    const actual = numbers(pixelValues)
    return input.video_frame_size
      ? expectFrames(actual, pixels, internvl.processor.config.video.std)
      : expectClose(actual, pixels, 1e-5)
  }
  return [
    check('prompts', expectEqual(prompts, input.prompts)),
    check('input_ids', integers(inputIds, 'input_ids')),
    check('attention_mask', integers(attentionMask, 'attention_mask')),
    ...(pixels || pixelValues ? [check('pixel_values', pixelOutcome())] : [])
  ]
}

/** Runs `f`, whose result is not a tensor, and disposes every tensor that `f` creates. */
export const scratch = <A>(f: () => A): A => {
  tf.engine().startScope()
  try {
    return f()
  } finally {
    tf.engine().endScope()
  }
}

const forwardChecks = ({ prefix, internvl, stored, rope }: Context): readonly Check[] =>
  scratch(() => {
    const inputs = storedInputs(stored)
    const mask = stored.get('attention_mask')!.values
    const close = (name: string, actual: tf.Tensor, rows?: Float32Array): Check => ({
      name: `${prefix}: ${name}`,
      outcome: expectClose(numbers(actual), stored.get(name)!, tolerance.states, rows)
    })
    const options = { attentionMask: inputs.attentionMask, outputHiddenStates: true, ropeLength: rope?.forward }
    const { logits, hiddenStates = [] } = internvl.model(inputs, options)
    const text = [...hiddenStates.map((h, i) => close(`text_hidden_states.${i}`, h, mask)), close('logits', logits, mask)]
    if (!inputs.pixelValues) return text
    const tower = visionTower(internvl.config.visionConfig).apply(internvl.params.model.vision_tower)
    const vision = tower(inputs.pixelValues, { outputHiddenStates: true })
    return [
      ...text,
      ...vision.hiddenStates!.map((h, i) => close(`vision_hidden_states.${i}`, h)),
      close('vision_last_hidden_state', vision.lastHiddenState),
      close('image_features', internvl.model.imageFeatures(inputs.pixelValues))
    ]
  })

/** Logits from pixel values that this project's processor computed. */
const logitsFromPixels = ({ prefix, internvl, stored, rope }: Context, prepared: ModelInputs): readonly Check[] =>
  scratch(() => {
    if (!prepared.pixelValues || `${prepared.inputIds.shape}` !== `${stored.get('input_ids')!.shape}`) return []
    const { logits } = internvl.model(prepared, { attentionMask: prepared.attentionMask, ropeLength: rope?.forward })
    const outcome = expectClose(numbers(logits), stored.get('logits')!, tolerance.states, stored.get('attention_mask')!.values)
    return [{ name: `${prefix}: logits from pixels of this project`, outcome }]
  })

const generateChecks = async ({ prefix, internvl, input, stored, rope }: Context): Promise<readonly Check[]> => {
  const inputs = storedInputs(stored)
  const checks: Check[] = []
  for (const [kind, { options, tokens, text }] of Object.entries(input.generate)) {
    const name = `${prefix}: generate ${kind}`
    const settings = {
      ...internvl.generation,
      ...getOrThrow(generationConfig(options)),
      doSample: false,
      maxPositionEmbeddings: undefined, // the reference generates beyond this length
      ropeLength: rope?.generate[kind]
    }
    const { sequences } = await generateAll(internvl.model, inputs, settings)
    const pad = internvl.processor.tokenizer.idOf(internvl.processor.tokenizer.names.pad_token ?? '')
    const padded = tokens.map((row, i) => row.map((_, j) => sequences[i]![j] ?? pad))
    checks.push({ name: `${name} tokens`, outcome: expectEqual(padded, tokens) })
    const decoded = sequences.map((ids) => internvl.processor.decode(ids, { skipSpecialTokens: true }))
    checks.push({ name: `${name} text`, outcome: expectEqual(decoded, text) })
  }
  tf.dispose(Object.values(inputs))
  return checks
}

const lossOf =
  (internvl: InternVLCheckpoint, inputs: ReturnType<typeof storedInputs>, labels: tf.Tensor2D, ropeLength?: number) =>
  (params: InternVLCheckpoint['params']) =>
    causalLoss(internvl.module.apply(params)(inputs, { attentionMask: inputs.attentionMask, ropeLength }).logits, labels)

const gradientOutcome = (norm: number, expected: number): Outcome => {
  const allowed =
    expected < 1e-2 ? Math.max(tolerance.smallGradientNorm, tolerance.gradientNorm * expected) : tolerance.gradientNorm * expected
  return expectThat(Math.abs(norm - expected) <= allowed, () => `got ${norm}, expected ${expected}`)
}

/** Key of a parameter in the reference, whose modules hold all experts in one tensor; files and this project hold them separately. */
const referenceKey = (path: string): string =>
  path
    .replace(/\.experts\.\d+\.(gate|up)_proj\.weight$/, '.experts.gate_up_proj')
    .replace(/\.experts\.\d+\.down_proj\.weight$/, '.experts.down_proj')

const normsByReference = (grads: unknown): ReadonlyMap<string, number> => {
  const squares = new Map<string, number>()
  for (const [path, g] of namedParameters(grads)) {
    const square = tf.tidy(() => g.square().sum().dataSync()[0]!)
    squares.set(referenceKey(path), (squares.get(referenceKey(path)) ?? 0) + square)
  }
  return new Map([...squares].map(([key, square]) => [key, Math.sqrt(square)]))
}

const gradientChecks = ({ prefix, internvl, input, stored, rope }: Context): readonly Check[] => {
  const inputs = storedInputs(stored)
  const labels = tensor(stored.get('labels')!, 'int32') as tf.Tensor2D
  const { value, grads } = valueAndGrad(lossOf(internvl, inputs, labels, rope?.gradient))(internvl.params)
  const loss = value.dataSync()[0]!
  const norms = normsByReference(grads)
  disposeParams(grads)
  tf.dispose([value, labels, ...Object.values(inputs)])
  const keys = [...new Set([...Object.keys(input.gradient_norms), ...norms.keys()])]
  return [
    {
      name: `${prefix}: loss`,
      outcome: expectThat(
        Math.abs(loss - input.loss) <= tolerance.loss * Math.abs(input.loss),
        () => `got ${loss}, expected ${input.loss}`
      )
    },
    ...keys.map((key) => ({
      name: `${prefix}: gradient norm of ${key}`,
      outcome: gradientOutcome(norms.get(key) ?? Number.NaN, input.gradient_norms[key] ?? 0)
    }))
  ]
}

/** Five steps of AdamW on one input, every parameter trained. */
const trainingChecks = async (dir: string, prefix: string, internvl: InternVLCheckpoint): Promise<readonly Check[]> => {
  if (!existsSync(join(dir, 'training.json'))) return []
  const { input, loss_and_norm: expected } = readJson(join(dir, 'training.json')) as {
    input: string
    loss_and_norm: readonly (readonly [number, number])[]
  }
  const stored = await readNumbers(join(dir, `${input}.safetensors`))
  const inputs = storedInputs(stored)
  // in the reference only image tokens are ignored
  const ids = inputs.inputIds.arraySync()
  const labels = tf.tensor2d(
    ids.map((row) => row.map((id) => (id === internvl.config.imageTokenId ? -100 : id))),
    undefined,
    'int32'
  )
  const optimizer = adamW({ learningRate: 1e-3, weightDecay: 0.05 })
  let params = mapParams((t) => t.clone())(internvl.params)
  let state = optimizer.init(params)
  const checks: Check[] = []
  for (const [step, [loss, norm]] of expected.entries()) {
    const { value, grads } = valueAndGrad(lossOf(internvl, inputs, labels))(params)
    const clipped = clipByGlobalNorm(1)(grads)
    const next = optimizer.update(params, clipped.grads, state)
    const got = value.dataSync()[0]!
    const message = () => `loss ${got} (expected ${loss}), gradient norm ${clipped.norm} (expected ${norm})`
    const close =
      Math.abs(got - loss) <= tolerance.trainingLoss * loss && Math.abs(clipped.norm - norm) <= tolerance.gradientNorm * norm
    checks.push({ name: `${prefix}/training: step ${step + 1}`, outcome: expectThat(close, message) })
    for (const old of [params, grads, clipped.grads, state.first, state.second]) disposeParams(old)
    tf.dispose(value)
    params = next.params
    state = next.state
  }
  for (const old of [params, state.first, state.second]) disposeParams(old)
  tf.dispose([labels, ...Object.values(inputs)])
  return checks
}

/** The inputs that this project's processor makes of an input's messages. */
export const preparedInputs = async (context: Context): Promise<E.Either<Issues, ModelInputs>> =>
  context.internvl.processor.prepare(await messagesOf(context), camelKeys(context.input.processor))()

const inputChecks = async (context: Context): Promise<readonly Check[]> => {
  const prepared = await preparedInputs(context)
  const checks = [...processorChecks(context, prepared), ...forwardChecks(context)]
  if (E.isRight(prepared)) {
    const { inputIds, attentionMask, pixelValues } = prepared.right
    checks.push(...logitsFromPixels(context, prepared.right))
    tf.dispose([inputIds, attentionMask, ...(pixelValues ? [pixelValues] : [])])
  }
  return [...checks, ...(await generateChecks(context)), ...gradientChecks(context)]
}

/** All checks of one checkpoint folder of a case: prompts, ids, pixels, states, features, logits, tokens, loss, gradients, training. */
const layoutChecks = async ({ name, dir }: Case, layout: string, images: string): Promise<readonly Check[]> => {
  let internvl: InternVLCheckpoint
  try {
    internvl = await load(join(dir, layout), { configure: asReferenced, imageBackend: 'pillow' }) // the reference was made with Pillow
  } catch (error) {
    const { message } = error as Error
    const outcome = /not supported yet/.test(message) ? skipped(message) : failed(message)
    return [{ name: `${name}/${layout}: load`, outcome }]
  }
  const checks: Check[] = []
  for (const one of await readInputs(dir, internvl.config.textConfig)) {
    const prefix = `${name}/${layout}/${one.label}`
    const context = { ...one, prefix, images, internvl }
    const broken = (error: Error) => [{ name: prefix, outcome: failed(error.stack ?? error.message) }]
    checks.push(...(await inputChecks(context).catch(broken)))
  }
  checks.push(...(await trainingChecks(dir, `${name}/${layout}`, internvl)))
  internvl.dispose()
  return checks
}

/** Checks of every checkpoint layout that the case has. */
export const modelCaseChecks = async (one: Case, images: string): Promise<readonly Check[]> => {
  const all: Check[] = []
  for (const layout of layoutsOf(one)) all.push(...(await layoutChecks(one, layout, images)))
  return all
}
