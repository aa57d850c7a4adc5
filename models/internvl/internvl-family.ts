import { openGvLabDialect } from '../config/opengvlab-config.js'
import { transformersDialect } from '../config/transformers-config.js'
import type { ModelFamily } from '../model-family.js'
import { internVL } from './internvl.js'
import { internVLParts, openGvLabLayouts, transformersLayouts } from './internvl-keys.js'

/**
 * InternVL 1.1 to 3.5: `internvl` as Transformers saves it, `internvl_chat` as OpenGVLab does. Intern-S1 is the same model with drop path
 * in training; Qianfan-VL is the same model in OpenGVLab's dialect.
 */
export const internVLFamily: ModelFamily = {
  modelType: 'internvl',
  build: internVL,
  parts: internVLParts,
  imageToken: '<IMG_CONTEXT>',
  dialects: {
    hf: { ...transformersDialect, otherModelTypes: ['interns1'], layouts: transformersLayouts },
    original: { ...openGvLabDialect, otherModelTypes: ['qianfanvl_chat'], layouts: openGvLabLayouts }
  }
}
