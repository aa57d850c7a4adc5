/** The low-level API of node-av, which contains FFmpeg. The high-level API needs Promise.withResolvers, which Node 20 lacks. */
export type Av = typeof import('node-av/lib') & typeof import('node-av/constants')

const load = async (): Promise<Av | undefined> => {
  try {
    const av = { ...(await import('node-av/lib')), ...(await import('node-av/constants')) }
    av.Log.setLevel(av.AV_LOG_QUIET)
    return av
  } catch {
    return undefined // not installed, or no binary for this platform
  }
}

let loading: Promise<Av | undefined> | undefined

/** Loads the optional package node-av once; undefined where the package is not installed. */
export const loadAv = (): Promise<Av | undefined> => {
  loading ??= load()
  return loading
}
