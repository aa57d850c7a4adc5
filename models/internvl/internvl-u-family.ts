import { flag } from '../config/config-fields.js'
import { openGvLabDialect } from '../config/opengvlab-config.js'
import { type ModelFamily, renameDialect } from '../model-family.js'
import { internVLFamily } from './internvl-family.js'
import { openGvLabLayouts } from './internvl-keys.js'

const modelType = 'internvlu_chat'

/** Source: `SPECIAL_TOKEN_LIST` (OpenGVLab/InternVL-U, internvlu/vlm/constants.py). */
const specialTokens = [
  '</box>',
  '<box>',
  '<IMG_CONTEXT>',
  '</img>',
  '<img>',
  '</quad>',
  '<quad>',
  '</ref>',
  '<ref>',
  '<img_uncond>'
]

const dialect = renameDialect({ ...openGvLabDialect, layouts: openGvLabLayouts }, modelType, modelType)

/**
 * The understanding half of InternVL-U (the folder `vlm` of its pipeline): InternVL3.5 whose special tokens have embeddings in a table of
 * their own, and whose pixel shuffle is always `v2`. Images are read, none are made.
 * Source: `InternVLUChatModel` (OpenGVLab/InternVL-U).
 */
export const internVLUFamily: ModelFamily = {
  ...internVLFamily,
  modelType,
  dialects: {
    original: {
      ...dialect,
      parse: (f) => {
        if (f('anyres_image_size', flag, false))
          f.note('anyres_image_size', 'false, for images of any size in one tile are not supported')
        return { ...dialect.parse(f), psVersion: 'v2', specialTokens: { tokens: specialTokens } }
      },
      write: (c, decoderType) => ({ ...dialect.write(c, decoderType), architectures: ['InternVLUChatModel'] })
    }
  }
}
