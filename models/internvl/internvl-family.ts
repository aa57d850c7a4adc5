import { openGvLabDialect } from '../config/opengvlab-config.js'
import { transformersDialect } from '../config/transformers-config.js'
import type { ModelFamily } from '../model-family.js'
import { internVL } from './internvl.js'
import { internVLParts, openGvLabLayouts, transformersLayouts } from './internvl-keys.js'

/** InternVL 1.5 to 3.5: `internvl` as Transformers saves it, `internvl_chat` as OpenGVLab does. */
export const internVLFamily: ModelFamily = {
  modelType: 'internvl',
  build: internVL,
  parts: internVLParts,
  imageToken: '<IMG_CONTEXT>',
  dialects: {
    hf: { ...transformersDialect, layouts: transformersLayouts },
    original: { ...openGvLabDialect, layouts: openGvLabLayouts }
  }
}
