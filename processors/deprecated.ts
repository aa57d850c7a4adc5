/** Names of this package's exports before version 0.2. */
export {
  /** @deprecated Use `writeImageFile`. */
  writeImageFile as writePicture
} from './image/draw.js'
