import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const pathOf = (file: string): string => fileURLToPath(new URL(file, import.meta.url))

/** Time of the last change; 0 for a file that does not exist. */
const changedAt = (path: string): Promise<number> =>
  stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0
  )

/** Builds the page of a checkout, unless the built file is newer than its sources. The build runs in a process of its own. */
const buildPage = async (folder: string, built: string): Promise<void> => {
  const files = await readdir(folder, { recursive: true })
  const sources = files.filter((name) => /\.\w+$/.test(name) && !/^dist\b/.test(name))
  const times = await Promise.all(sources.map((name) => changedAt(`${folder}/${name}`)))
  if (Math.max(...times) > (await changedAt(built))) await promisify(execFile)(process.execPath, [`${folder}/build-page.mjs`])
}

let building: Promise<void> | undefined

/**
 * The page as one HTML file: in the package beside this module, in a checkout built when first asked for. Undefined if that fails;
 * `onWarning` receives the reason.
 */
export const readPage = async (onWarning: (text: string) => void): Promise<string | undefined> => {
  const [packed, built] = [pathOf('./page/index.html'), pathOf('./page/dist/index.html')]
  try {
    if (!existsSync(pathOf('./page/build-page.mjs'))) return await readFile(packed, 'utf8')
    building ??= buildPage(pathOf('./page'), built)
    await building
    return await readFile(built, 'utf8')
  } catch (error) {
    building = undefined
    onWarning(`page: not built; run npm ci and npm run build:page (${(error as Error).message.split('\n')[0]})`)
    return undefined
  }
}
