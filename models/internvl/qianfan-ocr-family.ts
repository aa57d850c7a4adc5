import type { KeyGroup, Layouts } from '../checkpoint/keys.js'
import { flag } from '../config/config-fields.js'
import { openGvLabDialect } from '../config/opengvlab-config.js'
import { transformersDialect } from '../config/transformers-config.js'
import { type ModelFamily, renameDialect } from '../model-family.js'
import { internVLFamily } from './internvl-family.js'
import { decoderGroup, internVLParts, originalGroup } from './internvl-keys.js'

const modelType = 'qianfan_ocr'
const written = 'hf-qianfan_ocr'
const resaved = 'hf-qianfan_ocr-encoder'

/**
 * The decoder's layers as Transformers 5.24 writes them: its mapping of the vision tower's `encoder.layers`, read backwards, renames them too.
 */
const encoderGroup: KeyGroup = {
  name: resaved,
  rules: [{ file: 'language_model.model.encoder.layers.*.**', tree: `${internVLParts.decoder}.layers.*.**` }],
  recognizedBy: ['language_model.model.encoder.layers.*.**']
}

const layouts: Layouts = {
  [written]: [originalGroup, decoderGroup], // the published names
  [resaved]: [encoderGroup, originalGroup, decoderGroup]
}

const dialect = renameDialect({ ...transformersDialect, layouts, writtenLayout: written }, modelType, modelType)

/**
 * Qianfan-OCR: InternVL with a Qwen3 decoder, drop path in training, images marked by `<image>`, and no videos. Files have OpenGVLab's
 * tensor names, which Transformers writes too, with a config.json in Transformers' dialect; the first release has OpenGVLab's dialect.
 * Source: `QianfanOCRConfig`, the conversion mapping of `qianfan_ocr` (transformers 5.24).
 */
export const qianfanOcrFamily: ModelFamily = {
  ...internVLFamily,
  modelType,
  dialects: {
    hf: {
      ...dialect,
      parse: (f) =>
        f.has('llm_config')
          ? openGvLabDialect.parse(f)
          : { ...dialect.parse(f), tieWordEmbeddings: f('tie_word_embeddings', flag, false) },
      write: (c, decoderType) => ({
        ...dialect.write(c, decoderType),
        architectures: ['QianfanOCRForConditionalGeneration']
      })
    }
  }
}
