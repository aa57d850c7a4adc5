import assert from 'node:assert/strict'
import * as generation from '../../generation/index.js'
import * as train from '../../generation/train/index.js'
import * as transformers from '../../generation/transformers/index.js'
import * as lib from '../../lib/index.js'
import * as models from '../../models/index.js'
import * as processors from '../../processors/index.js'

/** Values that version 0.1 exported, by the subpath that exports them now. */
const namesBefore: ReadonlyArray<readonly [subpath: string, exports: object, names: string]> = [
  [
    'lib',
    lib,
    'accumulate activations adamW affine applyRope attend bcoLoss buildParams causalLoss clipByGlobalNorm clipFactor ' +
      'combine constant conv2dPatches countParameters crossEntropy declarations disposeParams dpo dpoLoss embedding ' +
      'engineNames exceptNormsAndBiases expectShape fault fromFloat32 fromStateDict gelu geluTanh getOrThrow globalNorm ' +
      'identity initParams InternVLError layerNorm linear logProbabilities mapParams mergeHeads module mpo ' +
      'namedParameters noNorm noRewards normal ones openCheckpointTensors openSafetensors orThrow paddingMask partition ' +
      'preferenceLoss quickGelu reductionWeights repeat resizeGrid rmsNorm ropeFrequencies ropeTables schedules ' +
      'selectEngine ShapeError silu splitHeads stateDict tf toFloat32 tokenLosses valueAndGrad valueGradAndAux ' +
      'writeCheckpointTensors writeSafetensors zeros'
  ],
  [
    'models',
    models,
    'absorbLora adapterBase addLora attachLora cacheLength decoderFor dtypes inspectModel internVL isLoraPath ' +
      'linearModules loadAdapter loadModel loadVision loraParts loraWeights mergeFeatures mergeLora parseConfig ' +
      'pixelShuffle plainShapes poolVision projector quantizations readConfig saveAdapter saveModel visionEncoder ' +
      'visionLayerDecay visionTower visualDeltas visualPositions withoutLora'
  ],
  [
    'processors',
    processors,
    'bestGrid countTiles drawBoxes drawOn encodePng frameIndices loadProcessor readImage RESAMPLE resize ' +
      'supportedGrids writePicture'
  ],
  [
    'generation',
    generation,
    'answer answerLogits answerLosses answerPerplexity bestOf chat convert demoModel disposeCache embed featureCache ' +
      'featuresOf generate generateAll generationConfig groundedText inspect linePlot linePlots load loadEyes ' +
      'parseGrounding perplexityOf pipeline processRewards processRewardScorer readDataset readGenerationConfig ' +
      'renderGrounding restoreChat restoreHistory save saveHistory streamAnswers streamText textStream toPixels'
  ],
  [
    'train',
    train,
    'batchOf bestCheckpoint disposeBatch endless epochRows fineTune initialState lastCheckpoint lengthGroupedOrder ' +
      'loadCheckpoint measure merge packedBatchOf packRows padIdOf preferenceOf prefetch readMeta readTrainConfig ' +
      'readTraining run sampleOf saveCheckpoint shuffledOrder train trainConfig'
  ],
  [
    'transformers',
    transformers,
    'AutoModelForImageTextToText AutoProcessor InternVLConfig InternVLForConditionalGeneration InternVLModel ' +
      'InternVLProcessor InternVLVideoProcessor InternVLVisionConfig InternVLVisionModel TextStreamer'
  ]
]

describe('names of version 0.1', () => {
  for (const [subpath, exports, names] of namesBefore)
    it(`are exported by internvl-tfjs/${subpath}`, () => {
      const missing = names.split(' ').filter((name) => (exports as Readonly<Record<string, unknown>>)[name] === undefined)
      assert.deepEqual(missing, [])
    })
})
