import { access, open, readFile, stat } from 'node:fs/promises'

/** Whether a file or folder exists and is visible to this process. */
export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false
  )

/** Whether a path is a file. */
export const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (s) => s.isFile(),
    () => false
  )

/** Maximum size of a configuration, tokenizer or index file in bytes: several times the largest published one. */
export const MAX_SMALL_FILE = 128 * 2 ** 20

/**
 * Reads a configuration, tokenizer or index file whole. Throws the error of the system; `EFBIG` for a file above `MAX_SMALL_FILE`, and
 * `EINVAL` for a device, a pipe or a socket, whose size is unknown.
 */
export const readSmallFile = async (path: string): Promise<Buffer> => {
  const found = await stat(path)
  const fail = (code: string, why: string): never => {
    throw Object.assign(new Error(`${code}: ${why}`), { code, path })
  }
  if (!found.isFile() && !found.isDirectory()) fail('EINVAL', 'it is not a regular file')
  if (found.size > MAX_SMALL_FILE) fail('EFBIG', `it has ${found.size} bytes, at most ${MAX_SMALL_FILE} are read`)
  return readFile(path)
}

/** Like `readSmallFile`, as text. */
export const readSmallText = async (path: string): Promise<string> => (await readSmallFile(path)).toString('utf8')

/** Whether a process of this machine runs, also one of another user. */
export const isProcessRunning = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Flushes the names of new and renamed files of a folder to the disk. */
export const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, 'r').catch(() => undefined) // Windows opens no folders
  await handle?.sync().catch(() => undefined)
  await handle?.close()
}
