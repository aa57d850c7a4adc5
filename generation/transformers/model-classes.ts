import { selectEngine } from '../../lib/engines/index.js'
import { orThrow } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { countParameters, disposeParams, initParams, namedParameters } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import type { InternVLConfig, VisionConfig } from '../../models/config/parse-config.js'
import type { KVCache } from '../../models/decoders/decoder.js'
import { modelFor } from '../../models/families.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { poolVision, type VisionOptions, type VisionOutput, visionTower } from '../../models/internvl/vision.js'
import { loadVision } from '../../models/internvl/vision-encoder.js'
import { withActivations } from '../../models/quantization/activations.js'
import type { Activations } from '../../models/quantization/precision.js'
import { disposeOnce, throwsWhenDisposed } from '../checkpoint/disposable.js'
import { demoModel, load } from '../checkpoint/load.js'
import { partFamilies } from '../checkpoint/part-modules.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { modelFolder } from '../hub/index.js'
import { loadOptions, type PretrainedOptions } from './config-classes.js'

/** A model with its parameters. */
export interface OpenModel {
  readonly config: InternVLConfig
  readonly params: unknown
  readonly model: InternVL
  readonly generation?: GenerateOptions
}

/** Base class of all model classes. Owns the parameters; after `dispose` a forward throws an `InternVLError`. */
abstract class PreTrained<C> {
  protected readonly parameters = disposeOnce(() => disposeParams(this.params))

  constructor(
    readonly config: C,
    protected readonly params: unknown,
    private readonly module: Module
  ) {}

  /** Parameters by their keys in a checkpoint. */
  namedParameters(): ReadonlyArray<readonly [name: string, tensor: tf.Tensor]> {
    return namedParameters(this.params)
  }

  /** Number of parameters, independent of quantization. */
  numParameters(): number {
    return countParameters(this.module)
  }

  stateDict(): Readonly<Record<string, tf.Tensor>> {
    return Object.fromEntries(this.namedParameters())
  }

  dispose(): void {
    this.parameters.dispose()
  }
}

/** A model with new parameters, pseudo-random from `seed`. */
const initModel = (config: InternVLConfig, seed = 0): OpenModel => {
  const module = modelFor(config)
  const params = initParams(module, seed)
  return { config, params, model: module.apply(params) }
}

const isOpenModel = (source: InternVLConfig | OpenModel): source is OpenModel => 'model' in source

/** Inputs of both classes of the whole model. */
export interface ForwardInputs {
  /** `[B, L]`. Exactly one of `inputIds` and `inputsEmbeds` `[B, L, D]` is required. */
  readonly inputIds?: tf.Tensor2D | undefined
  readonly inputsEmbeds?: tf.Tensor3D | undefined
  /** Tiles `[T, C, H, W]` of the images in `inputIds`; or give `imageFeatures`. */
  readonly pixelValues?: tf.Tensor4D | undefined
  /** `[T, N, D]`, the output of `getImageFeatures`. */
  readonly imageFeatures?: tf.Tensor3D | undefined
  /** `[B, past + L]`, 0 is padding. */
  readonly attentionMask?: tf.Tensor2D | undefined
  readonly positionIds?: ReadonlyArray<readonly number[]> | undefined
  readonly cache?: KVCache | undefined
  /** Name of `cache` before Transformers 5.24. */
  readonly pastKeyValues?: KVCache | undefined
  readonly useCache?: boolean | undefined
  readonly outputHiddenStates?: boolean | undefined
  /** Attention weights of all layers, or of the layers with these indices; -1 is the last. */
  readonly outputAttentions?: boolean | readonly number[] | undefined
}

/** Output of the image encoder. */
export interface ImageOutputs {
  /** `[T, N, D]`, after the projector. */
  readonly poolerOutput: tf.Tensor3D
}

/** Outputs that both classes of the whole model have, with their names before Transformers 5.24 beside them. */
export interface CacheAndImageOutputs {
  /** With `useCache`. */
  readonly cache?: KVCache
  /** With `pixelValues`. */
  readonly imageOutputs?: ImageOutputs
  /** @deprecated The value of `cache`. */
  readonly pastKeyValues?: KVCache
  /** @deprecated The value of `imageOutputs.poolerOutput`. */
  readonly imageHiddenStates?: tf.Tensor3D
}

/** Source: `MultimodalCausalLMOutputWithPast` (transformers 5.24). */
export const cacheAndImageOutputs = (cache: KVCache | undefined, features: tf.Tensor3D | undefined): CacheAndImageOutputs => ({
  ...(cache ? { cache, pastKeyValues: cache } : {}),
  ...(features ? { imageOutputs: { poolerOutput: features }, imageHiddenStates: features } : {})
})

/** Base class of `InternVLModel` and `InternVLForConditionalGeneration`. */
export abstract class InternVLPreTrainedModel extends PreTrained<InternVLConfig> {
  /** The functional model. */
  readonly internvl: InternVL

  /** From a configuration with new parameters, or from a loaded model, whose parameters the instance then owns. */
  constructor(source: InternVLConfig | OpenModel, seed = 0) {
    const model = isOpenModel(source) ? source : initModel(source, seed)
    super(model.config, model.params, modelFor(model.config))
    this.internvl = throwsWhenDisposed(model.model, this.parameters)
  }

  /** Image features of tiles, `[T, C, H, W] → [T, N, D]`. */
  getImageFeatures({ pixelValues }: { readonly pixelValues: tf.Tensor4D }): ImageOutputs {
    return { poolerOutput: this.internvl.imageFeatures(pixelValues) }
  }

  /** Token embeddings and the image features merged into them. Call within `tf.tidy`. */
  protected embed({ inputIds, inputsEmbeds, pixelValues, imageFeatures }: ForwardInputs) {
    if ((inputIds === undefined) === (inputsEmbeds === undefined))
      throw new RangeError('You must specify exactly one of inputIds or inputsEmbeds')
    const features = imageFeatures ?? (pixelValues && this.internvl.imageFeatures(pixelValues))
    if (inputsEmbeds && features)
      throw new RangeError('inputsEmbeds: images need inputIds, whose image tokens mark their positions')
    const embeds = inputsEmbeds ?? this.internvl.embed({ inputIds: inputIds!, imageFeatures: features })
    return { embeds, features: imageFeatures ? undefined : features }
  }

  /** Options of the decoder. */
  protected decoding({
    attentionMask,
    positionIds,
    cache,
    pastKeyValues,
    useCache,
    outputHiddenStates,
    outputAttentions
  }: ForwardInputs) {
    if (cache && pastKeyValues) throw new RangeError('You cannot specify both cache and pastKeyValues: use cache only')
    return {
      attentionMask,
      positionIds,
      cache: cache ?? pastKeyValues,
      useCache: useCache ?? false,
      outputHiddenStates: outputHiddenStates ?? false,
      outputAttentions
    }
  }
}

/** Output of `InternVLModel`. The caller owns all tensors. */
export interface ModelOutput extends CacheAndImageOutputs {
  /** `[B, L, D]`, after the final norm. */
  readonly lastHiddenState: tf.Tensor3D
  /** Index 0 is the embeddings; the last is `lastHiddenState`. */
  readonly hiddenStates?: readonly tf.Tensor3D[]
  /** With `outputAttentions`: attention weights `[B, H, L, Lk]` of each layer. */
  readonly attentions?: readonly tf.Tensor4D[]
}

/** `InternVLModel` of Transformers: vision tower, projector and decoder, without the head. */
export class InternVLModel extends InternVLPreTrainedModel {
  /** Loads a checkpoint folder in any layout, or `org/name` of the hub. Throws one `InternVLError` with all errors. */
  static async fromPretrained(name?: string, options: PretrainedOptions = {}): Promise<InternVLModel> {
    return new InternVLModel(await load(name, loadOptions(options)))
  }

  forward(inputs: ForwardInputs): ModelOutput {
    return tf.tidy(() => {
      const { embeds, features } = this.embed(inputs)
      const options = { ...this.decoding(inputs), outputHiddenStates: true, logitsToKeep: 1 }
      const { hiddenStates, attentions, cache } = this.internvl.decode(embeds, options)
      const output = {
        lastHiddenState: hiddenStates!.at(-1)!,
        ...(inputs.outputHiddenStates ? { hiddenStates: [...hiddenStates!] } : {}),
        ...(attentions ? { attentions: [...attentions] } : {}),
        ...cacheAndImageOutputs(cache, features)
      }
      return output as unknown as tf.TensorContainer
    }) as unknown as ModelOutput
  }
}

export interface VisionInputs {
  /** `[T, C, H, W]` */
  readonly pixelValues: tf.Tensor4D
  /** `[T, patches]`, 1 where the mask token replaces a patch. */
  readonly boolMaskedPos?: tf.Tensor2D | undefined
  readonly outputHiddenStates?: boolean | undefined
  readonly outputAttentions?: boolean | undefined
}

/** Output of `InternVLVisionModel`. The caller owns all tensors. */
export interface VisionModelOutput extends VisionOutput {
  /** `[T, D]`: the mean over the patches, or the class token, as the configuration says; see `poolVision`. */
  readonly poolerOutput: tf.Tensor2D
}

/** `InternVLVisionModel` of Transformers: the vision tower alone. */
export class InternVLVisionModel extends PreTrained<VisionConfig> {
  private readonly tower: (pixelValues: tf.Tensor4D, options?: VisionOptions) => VisionOutput

  /** From a configuration, with new parameters by default. */
  constructor(config: VisionConfig, params: unknown = initParams(visionTower(config)), activations?: Activations) {
    super(config, params, visionTower(config))
    const tower = visionTower(config).apply(params as Parameters<ReturnType<typeof visionTower>['apply']>[0])
    this.tower = throwsWhenDisposed(withActivations(tower, activations, params), this.parameters)
  }

  /** Loads the vision tower of a checkpoint without the decoder's weights. Throws one `InternVLError` with all errors. */
  static async fromPretrained(name = demoModel, given: PretrainedOptions = {}): Promise<InternVLVisionModel> {
    const options = loadOptions(given)
    const dir = await orThrow(modelFolder(name, options))
    await selectEngine(options)
    const { config, params } = await orThrow(loadVision(dir, { ...options, parts: await partFamilies(options.parts) }))
    disposeParams(params.multi_modal_projector)
    return new InternVLVisionModel(config.visionConfig, params.vision_tower, options.activations)
  }

  /** `[T, C, H, W]` to `lastHiddenState` `[T, 1 + patches, D]` and the requested outputs. */
  forward({ pixelValues, boolMaskedPos, ...requested }: VisionInputs): VisionModelOutput {
    const { outputHiddenStates = false, outputAttentions = false } = requested
    return tf.tidy(() => {
      const masked = boolMaskedPos ? { masked: boolMaskedPos } : {}
      const output = this.tower(pixelValues, { outputHiddenStates, outputAttentions, ...masked })
      return { ...output, poolerOutput: poolVision(this.config, output.lastHiddenState) } as unknown as tf.TensorContainer
    }) as unknown as VisionModelOutput
  }
}
