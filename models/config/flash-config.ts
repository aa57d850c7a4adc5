import { type Fields, flag, type Json, number } from './config-fields.js'
import type { FlashConfig, InternVLConfig } from './model-config.js'

const flashDefaults: FlashConfig = { mode: false, relativeThreshold: 0.5, absoluteThreshold: 0.5 }

/** The router of a Flash model; undefined where the file has none of its fields. */
export const flashConfig = (f: Fields): FlashConfig | undefined => {
  const relative = 'flash_relative_threshold'
  const absolute = 'flash_absolute_threshold'
  if (!f.has(`flash_mode|${relative}|${absolute}`)) return undefined
  return {
    mode: f.maybe('flash_mode', flag) ?? true,
    relativeThreshold: f.maybe(relative, number) ?? flashDefaults.relativeThreshold,
    absoluteThreshold: f.maybe(absolute, number) ?? flashDefaults.absoluteThreshold
  }
}

/** The configuration with a router where the checkpoint stores one, and without where neither the file nor the weights have one. */
export const settleFlash = (c: InternVLConfig, hasRouter: boolean): InternVLConfig => {
  if (hasRouter) return c.flash ? c : { ...c, flash: flashDefaults }
  return c.flash?.mode ? c : { ...c, flash: undefined }
}

/** The fields of the router, the same in both dialects. */
export const flashJson = ({ flash }: InternVLConfig): Json =>
  flash
    ? {
        flash_mode: flash.mode,
        flash_relative_threshold: flash.relativeThreshold,
        flash_absolute_threshold: flash.absoluteThreshold
      }
    : {}
