import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type InternVLCheckpoint, load } from '../../generation/checkpoint/load.js'
import { generateAll } from '../../generation/decoding/generate.js'
import { routeInputs } from '../../generation/flash/route-inputs.js'
import { tf } from '../../lib/tf.js'
import { type Case, type Numbers, readJson, readNumbers } from './case.js'
import { type Context, numbers, preparedInputs, processorChecks, scratch, tolerance } from './model-case.js'
import { type Check, expectClose, expectEqual, expectThat, failed, type Outcome } from './outcome.js'
import { type CaseInput, layoutsOf, storedInputs } from './reference-inputs.js'

/** One input of a case of InternVL3.5-Flash, as `make_flash_reference.py` wrote it: one conversation with images. */
interface FlashInput extends CaseInput {
  readonly thresholds: { readonly flash_relative_threshold: number; readonly flash_absolute_threshold: number }
  /** The router's p of each tile. */
  readonly scores: readonly number[]
  readonly compressed: readonly boolean[]
  readonly greedy: readonly number[]
  readonly greedy_without: readonly number[]
}

const labelsOf = (dir: string): readonly string[] =>
  readdirSync(dir).flatMap((file) => (file.endsWith('.safetensors') ? [file.slice(0, -'.safetensors'.length)] : []))

/** Whether a case is of InternVL3.5-Flash. */
export const isFlashCase = ({ dir }: Case): boolean =>
  layoutsOf({ name: '', dir }).some((layout) => {
    const config = join(dir, layout, 'config.json')
    return existsSync(config) && (readJson(config) as { readonly flash_mode?: boolean }).flash_mode === true
  })

/** The stored tensors with the attention mask, which one conversation needs not. */
const withMask = (stored: ReadonlyMap<string, Numbers>): ReadonlyMap<string, Numbers> => {
  const { shape, values } = stored.get('input_ids')!
  return new Map([...stored, ['attention_mask', { shape, values: values.map(() => 1) }]])
}

type FlashContext = Context & { readonly input: FlashInput }

const routerChecks = async ({ prefix, internvl, input, stored }: FlashContext): Promise<readonly Check[]> => {
  const { model, generation } = internvl
  const check = (value: string, outcome: Outcome): Check => ({ name: `${prefix}: ${value}`, outcome })
  const inputs = storedInputs(stored)
  const { flash_relative_threshold, flash_absolute_threshold } = input.thresholds
  const thresholds = { flashRelativeThreshold: flash_relative_threshold, flashAbsoluteThreshold: flash_absolute_threshold }
  const options = { ...generation, ...thresholds, maxNewTokens: 12 }
  const routed = (await routeInputs(model, inputs, options))!
  const [{ scores, compressed }] = routed.routing as [(typeof routed.routing)[number]]
  const logits = scratch(() => numbers(model(routed.inputs).logits))
  const whole = scratch(() => numbers(model(inputs).logits))
  const features = numbers(routed.inputs.imageFeatures!)
  const farthest = Math.max(...scores.map((p, i) => Math.abs(p - input.scores[i]!)))
  const expectedIds = Array.from(stored.get('kept_ids')!.values)
  const checks = [
    check(
      'scores',
      expectThat(farthest < 1e-4, () => `scores differ by ${farthest}`)
    ),
    check('compressed tiles', expectEqual(compressed, input.compressed)),
    check('kept ids', expectEqual(routed.inputs.promptIds, [expectedIds])),
    check(
      'image features',
      expectClose({ ...features, shape: features.shape.slice(1) }, stored.get('image_features')!, tolerance.states)
    ),
    check('logits', expectClose(logits, stored.get('logits')!, tolerance.states)),
    check('logits without the router', expectClose(whole, stored.get('logits_without')!, tolerance.states)),
    check('greedy tokens', expectEqual((await generateAll(model, inputs, options)).sequences, [input.greedy])),
    check(
      'greedy tokens without the router',
      expectEqual((await generateAll(model, inputs, { ...options, flash: false })).sequences, [input.greedy_without])
    )
  ]
  routed.dispose()
  tf.dispose(Object.values(inputs))
  return checks
}

const inputChecks = async (context: FlashContext): Promise<readonly Check[]> => {
  const prepared = await preparedInputs(context)
  const checks = processorChecks(context, prepared)
  if (prepared._tag === 'Right') prepared.right.dispose()
  return [...checks, ...(await routerChecks(context))]
}

/** All checks of a case of InternVL3.5-Flash: the processor, the compressed tiles, features, logits and tokens, router on and off. */
export const flashCaseChecks = async (one: Case, images: string): Promise<readonly Check[]> => {
  const checks: Check[] = []
  for (const layout of layoutsOf(one)) {
    const internvl: InternVLCheckpoint = await load(join(one.dir, layout), { imageBackend: 'pillow' })
    for (const label of labelsOf(one.dir)) {
      const input = readJson(join(one.dir, `${label}.json`)) as FlashInput
      const stored = withMask(await readNumbers(join(one.dir, `${label}.safetensors`)))
      const prefix = `${one.name}/${layout}/${label}`
      const context = { label, input, stored, rope: undefined, prefix, images, internvl }
      checks.push(
        ...(await inputChecks(context).catch((error: Error) => [{ name: prefix, outcome: failed(error.stack ?? error.message) }]))
      )
    }
    internvl.dispose()
  }
  return checks
}
