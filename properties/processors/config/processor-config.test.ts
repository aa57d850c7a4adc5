import assert from 'node:assert/strict'
import * as E from 'fp-ts/lib/Either.js'
import { getOrThrow } from '../../../lib/error.js'
import { decodeProcessorConfig, type ProcessorConfig, type ProcessorFiles } from '../../../processors/config/processor-config.js'

const read = (files: Omit<ProcessorFiles, 'dir'>): ProcessorConfig => getOrThrow(decodeProcessorConfig({ dir: 'dir', ...files }))
const issues = (files: Omit<ProcessorFiles, 'dir'>): readonly string[] => {
  const result = decodeProcessorConfig({ dir: 'dir', ...files })
  return E.isLeft(result) ? result.left.map(({ message }) => message) : []
}
const IMAGENET = { image_mean: [0.485, 0.456, 0.406], image_std: [0.229, 0.224, 0.225] }
const image = {
  size: { height: 56, width: 112 },
  crop_to_patches: false,
  min_patches: 2,
  max_patches: 6,
  resample: 2,
  ...IMAGENET
}
const video = { size: { height: 56, width: 112 }, num_frames: 8, do_sample_frames: true, initial_shift: 0, do_normalize: null }

describe('processor config', () => {
  it('nested sections and flat files give the same configuration', () => {
    const nested = read({ processor: { image_seq_length: 8, image_processor: image, video_processor: video } })
    assert.deepEqual(read({ processor: { image_seq_length: 8 }, preprocessor: image, videoPreprocessor: video }), nested)
    assert.deepEqual(nested.image.size, { height: 56, width: 112 })
    assert.deepEqual(
      [nested.image.minPatches, nested.image.maxPatches, nested.image.resample, nested.imageSeqLength],
      [2, 6, 2, 8]
    )
    assert.deepEqual([nested.video.numFrames, nested.video.doSampleFrames, nested.video.initialShift], [8, true, 0])
  })

  it("omitted settings have Transformers' defaults, and images are always cropped to patches", () => {
    const { image: images, video: videos, imageSeqLength } = read({ preprocessor: {} })
    const common = { size: { width: 384, height: 384 }, resample: 3, rescaleFactor: 1 / 255, doNormalize: true, doRescale: true }
    for (const [key, value] of Object.entries(common)) assert.deepEqual(images[key as keyof typeof common], value)
    assert.deepEqual(images.mean, [0.48145466, 0.4578275, 0.40821073])
    assert.deepEqual([images.cropToPatches, images.minPatches, images.maxPatches, imageSeqLength], [true, 1, 12, 256])
    assert.deepEqual([videos.doSampleFrames, videos.numFrames, videos.initialShift], [false, undefined, true])
    assert.equal(read({ preprocessor: image }).image.cropToPatches, true)
  })

  it('a size and channel values may be one number', () => {
    const { image: images } = read({ preprocessor: { size: 28, image_mean: 0.5, image_std: 0.25 } })
    assert.deepEqual([images.size, images.mean, images.std], [{ width: 28, height: 28 }, [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])
  })

  it('videos use the image settings where their section is missing or has another tile size', () => {
    assert.deepEqual(read({ preprocessor: image }).video.mean, IMAGENET.image_mean)
    const { video: videos } = read({ preprocessor: image, videoPreprocessor: { size: 384 } })
    assert.deepEqual([videos.size, videos.mean], [{ height: 56, width: 112 }, IMAGENET.image_mean])
  })

  it("reads OpenGVLab's layout from config.json alone", () => {
    const config = {
      architectures: ['InternVLChatModel'],
      force_image_size: 448,
      downsample_ratio: 0.5,
      min_dynamic_patch: 1,
      max_dynamic_patch: 6,
      use_thumbnail: false,
      vision_config: { patch_size: 14, image_size: 224 }
    }
    const { image: images, imageSeqLength } = read({ config })
    assert.deepEqual([images.size.width, images.maxPatches, images.useThumbnail, imageSeqLength], [448, 6, false, 256])
    assert.deepEqual(images.mean, IMAGENET.image_mean)
    assert.equal(read({ config: { ...config, force_image_size: null } }).imageSeqLength, 64)
    assert.deepEqual(read({ config, preprocessor: { size: 448, crop_size: 448, image_mean: 0.5 } }).image.mean, [0.5, 0.5, 0.5])
    assert.match(
      issues({ config: { model_type: 'internvl_chat' } })[0]!,
      /dir\/config\.json: vision_config: expected .*, got nothing/
    )
  })

  it('refuses numbers beyond the bound of their meaning', () => {
    const wrong = [0, -1, 1.5, 1e21, 2 ** 31, Number.POSITIVE_INFINITY]
    for (const value of wrong) {
      assert.equal(issues({ processor: { image_seq_length: value, image_processor: image } }).length, 1, String(value))
      for (const field of ['min_patches', 'max_patches', 'num_frames', 'size'])
        assert.notEqual(issues({ preprocessor: { ...image, [field]: value } }).length, 0, `${field} ${value}`)
    }
    for (const field of ['rescale_factor', 'fps', 'initial_shift', 'image_mean', 'image_std'])
      assert.notEqual(issues({ preprocessor: { ...image, [field]: Number.POSITIVE_INFINITY } }).length, 0, field)
  })

  it('reports every invalid field with its file', () => {
    const wrong = issues({
      preprocessor: { size: { shortest_edge: 9 }, image_mean: [1, 2] },
      processor: {},
      videoPreprocessor: { fps: 'x' }
    })
    assert.equal(wrong.length, 3)
    assert.match(wrong[0]!, /dir\/preprocessor_config\.json: size: expected .*"height", "width".*, got {"shortest_edge":9}/)
    assert.match(wrong[1]!, /image_mean: expected .*three, one per channel.*, got \[1,2\]/)
    assert.match(wrong[2]!, /dir\/video_preprocessor_config\.json: fps: expected a finite number or null, got "x"/)
    assert.match(issues({})[0]!, /dir: no processor_config\.json with an image_processor/)
    assert.match(
      issues({ processor: { image_seq_length: -1 } })[0]!,
      /dir\/processor_config\.json: image_seq_length: expected a whole number/
    )
  })
})
