import { access } from 'node:fs/promises'

/** Whether a file or folder is there, as far as this process may see. */
export const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false
  )
