import { selectEngine } from '../../lib/engines/index.js'
import { orThrow } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { countParameters, disposeParams, initParams, namedParameters } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import type { InternVLConfig, VisionConfig } from '../../models/config/parse-config.js'
import type { KVCache } from '../../models/decoders/decoder.js'
import { type InternVL, internVL } from '../../models/internvl/internvl.js'
import { poolVision, type VisionOptions, type VisionOutput, visionTower } from '../../models/internvl/vision.js'
import { loadVision } from '../../models/internvl/vision-encoder.js'
import { demoModel, load } from '../checkpoint/load.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { modelFolder } from '../hub/index.js'
import { loadOptions, type PretrainedOptions } from './pretrained.js'

/** A model with its parameters, open: what the classes stand on. */
export interface Opened {
  readonly config: InternVLConfig
  readonly params: unknown
  readonly model: InternVL
  readonly generation?: GenerateOptions
}

/** What every model class has. The parameters are its own, until `dispose`. */
abstract class PreTrained<C> {
  constructor(
    readonly config: C,
    protected readonly params: unknown,
    private readonly module: Module
  ) {}

  /** Parameters by their names in a checkpoint. */
  namedParameters(): ReadonlyArray<readonly [name: string, tensor: tf.Tensor]> {
    return namedParameters(this.params)
  }

  /** Their number, whatever form they have. */
  numParameters(): number {
    return countParameters(this.module)
  }

  stateDict(): Readonly<Record<string, tf.Tensor>> {
    return Object.fromEntries(this.namedParameters())
  }

  dispose(): void {
    disposeParams(this.params)
  }
}

/** Fresh parameters, pseudo-random from `seed`. */
export const fresh = (config: InternVLConfig, seed = 0): Opened => {
  const module = internVL(config)
  const params = initParams(module, seed)
  return { config, params, model: module.apply(params) }
}

const isOpened = (source: InternVLConfig | Opened): source is Opened => 'model' in source

/** What both classes of the whole model take. */
export interface ForwardInputs {
  /** `[B, L]`; or `inputsEmbeds` `[B, L, D]`, exactly one of them. */
  readonly inputIds?: tf.Tensor2D | undefined
  readonly inputsEmbeds?: tf.Tensor3D | undefined
  /** Tiles `[T, C, H, W]` of the pictures in `inputIds`; or their features, `imageFeatures`. */
  readonly pixelValues?: tf.Tensor4D | undefined
  /** `[T, N, D]`, what `getImageFeatures` gave. */
  readonly imageFeatures?: tf.Tensor3D | undefined
  /** `[B, past + L]`, 0 is padding. */
  readonly attentionMask?: tf.Tensor2D | undefined
  readonly positionIds?: ReadonlyArray<readonly number[]> | undefined
  readonly pastKeyValues?: KVCache | undefined
  readonly useCache?: boolean | undefined
  readonly outputHiddenStates?: boolean | undefined
}

/** `InternVL` over parameters that it owns: what `InternVLModel` and `InternVLForConditionalGeneration` have in common. */
export abstract class InternVLPreTrainedModel extends PreTrained<InternVLConfig> {
  /** The functional model underneath. */
  readonly internvl: InternVL

  /** Of a configuration, with fresh parameters; or of what is open already. */
  constructor(source: InternVLConfig | Opened, seed = 0) {
    const opened = isOpened(source) ? source : fresh(source, seed)
    super(opened.config, opened.params, internVL(opened.config))
    this.internvl = opened.model
  }

  /** Tiles `[T, C, H, W]` to what the decoder reads, `[T, N, D]`. */
  getImageFeatures({ pixelValues }: { readonly pixelValues: tf.Tensor4D }): { readonly poolerOutput: tf.Tensor3D } {
    return { poolerOutput: this.internvl.imageFeatures(pixelValues) }
  }

  /** Embeddings, and the features that went into them. Call within `tf.tidy`. */
  protected embed({ inputIds, inputsEmbeds, pixelValues, imageFeatures }: ForwardInputs) {
    if ((inputIds === undefined) === (inputsEmbeds === undefined))
      throw new RangeError('You must specify exactly one of inputIds or inputsEmbeds')
    const features = imageFeatures ?? (pixelValues && this.internvl.imageFeatures(pixelValues))
    if (inputsEmbeds && features) throw new RangeError('inputsEmbeds: pictures need inputIds, which say where they are')
    const embeds = inputsEmbeds ?? this.internvl.embed({ inputIds: inputIds!, imageFeatures: features })
    return { embeds, features: imageFeatures ? undefined : features }
  }

  /** The decoder's options. */
  protected decoding({ attentionMask, positionIds, pastKeyValues: cache, useCache, outputHiddenStates }: ForwardInputs) {
    return { attentionMask, positionIds, cache, useCache: useCache ?? false, outputHiddenStates: outputHiddenStates ?? false }
  }
}

/** What `InternVLModel` gives. All tensors are the caller's. */
export interface ModelOutput {
  /** `[B, L, D]`, after the final norm. */
  readonly lastHiddenState: tf.Tensor3D
  readonly pastKeyValues?: KVCache
  /** 0 = embeddings; the last one is `lastHiddenState`. */
  readonly hiddenStates?: readonly tf.Tensor3D[]
  /** The features of `pixelValues`. */
  readonly imageHiddenStates?: tf.Tensor3D
}

/** `InternVLModel` of Transformers: vision tower, projector and decoder, without the head. */
export class InternVLModel extends InternVLPreTrainedModel {
  /** Opens a checkpoint folder in any layout, or `org/name` of the hub. Throws an `InternVLError` with all that is wrong. */
  static async fromPretrained(name?: string, options: PretrainedOptions = {}): Promise<InternVLModel> {
    return new InternVLModel(await load(name, loadOptions(options)))
  }

  forward(inputs: ForwardInputs): ModelOutput {
    return tf.tidy(() => {
      const { embeds, features } = this.embed(inputs)
      const options = { ...this.decoding(inputs), outputHiddenStates: true, logitsToKeep: 1 }
      const { hiddenStates, cache } = this.internvl.decode(embeds, options)
      const output = {
        lastHiddenState: hiddenStates!.at(-1)!,
        ...(cache ? { pastKeyValues: cache } : {}),
        ...(inputs.outputHiddenStates ? { hiddenStates: [...hiddenStates!] } : {}),
        ...(features ? { imageHiddenStates: features } : {})
      }
      return output as unknown as tf.TensorContainer
    }) as unknown as ModelOutput
  }
}

export interface VisionInputs {
  /** `[T, C, H, W]` */
  readonly pixelValues: tf.Tensor4D
  /** `[T, patches]`, 1 where the mask token takes a patch's place. */
  readonly boolMaskedPos?: tf.Tensor2D | undefined
  readonly outputHiddenStates?: boolean | undefined
  readonly outputAttentions?: boolean | undefined
}

/** What `InternVLVisionModel` gives. All tensors are the caller's. */
export interface VisionModelOutput extends VisionOutput {
  /** `[T, D]`: the mean of the patches, or the class token, as the configuration says; see `poolVision`. */
  readonly poolerOutput: tf.Tensor2D
}

/** `InternVLVisionModel` of Transformers: the vision tower alone. */
export class InternVLVisionModel extends PreTrained<VisionConfig> {
  private readonly tower: (pixelValues: tf.Tensor4D, options?: VisionOptions) => VisionOutput

  /** Of a configuration, with fresh parameters unless given. */
  constructor(config: VisionConfig, params: unknown = initParams(visionTower(config))) {
    super(config, params, visionTower(config))
    this.tower = visionTower(config).apply(params as Parameters<ReturnType<typeof visionTower>['apply']>[0])
  }

  /** The tower of a checkpoint; the decoder's weights are not read. Throws an `InternVLError` with all that is wrong. */
  static async fromPretrained(name = demoModel, given: PretrainedOptions = {}): Promise<InternVLVisionModel> {
    const options = loadOptions(given)
    const dir = await orThrow(modelFolder(name, options))
    await selectEngine(options)
    const { config, params } = await orThrow(loadVision(dir, options))
    disposeParams(params.multi_modal_projector)
    return new InternVLVisionModel(config.visionConfig, params.vision_tower)
  }

  /** `[T, C, H, W]` to `lastHiddenState` `[T, 1 + patches, D]`, and what is asked for beside it. */
  forward({ pixelValues, boolMaskedPos, ...asked }: VisionInputs): VisionModelOutput {
    const { outputHiddenStates = false, outputAttentions = false } = asked
    return tf.tidy(() => {
      const masked = boolMaskedPos ? { masked: boolMaskedPos } : {}
      const output = this.tower(pixelValues, { outputHiddenStates, outputAttentions, ...masked })
      return { ...output, poolerOutput: poolVision(this.config, output.lastHiddenState) } as unknown as tf.TensorContainer
    }) as unknown as VisionModelOutput
  }
}
