import type { Medium } from './exchange.js'

let count = 0

const readUrl = (file: File): Promise<string> =>
  new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result as string)
    reader.onerror = () => reject(new Error(`${file.name}: not readable`))
    reader.readAsDataURL(file)
  })

const imageNames = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|heif|jp2|ico|tga|p[bgpf]m)$/i
const videoNames = /\.(mp4|mov|webm|mkv|avi|m4v|mpe?g|flv|wmv|ogv)$/i

/** Kind of a file by its type, or by its name where the browser knows no type. */
const kindOf = ({ type, name }: File): Medium['kind'] | undefined => {
  if (type.startsWith('image/') || imageNames.test(name)) return 'image'
  return type.startsWith('video/') || videoNames.test(name) ? 'video' : undefined
}

/** Reads an image or video. Throws an `Error` for a file of another kind. */
export const readMedium = async (file: File): Promise<Medium> => {
  const kind = kindOf(file)
  if (!kind) throw new Error(`${file.name}: neither an image nor a video`)
  const url = await readUrl(file)
  return { id: ++count, kind, name: file.name || kind, url, preview: URL.createObjectURL(file) }
}
