import { useEffect, useRef, useState } from 'preact/hooks'
import { fetchTiling, messageOf, type Tiling } from './api-client.js'
import type { ChatSettings, Medium } from './exchange.js'
import { readMedium } from './media-file.js'

type TilingState = { readonly tiling?: Tiling; readonly problem?: string }

/** Tiles of an image or video as the server counts them; counted again when the settings change. */
export const useTiling = (medium: Medium | undefined, settings: ChatSettings, key: string): TilingState => {
  const [state, setState] = useState<TilingState>({})
  const { maxPatches, numFrames } = settings
  useEffect(() => {
    let isCurrent = true
    setState({})
    if (medium)
      fetchTiling(medium, settings, key).then(
        (tiling) => isCurrent && setState({ tiling }),
        (error) => isCurrent && setState({ problem: messageOf(error) })
      )
    return () => {
      isCurrent = false
    }
  }, [medium, maxPatches, numFrames, key])
  return state
}

/** Files that are dropped on the window or pasted. */
const useFiles = (onFiles: (files: readonly File[]) => void) => {
  const latest = useRef(onFiles)
  latest.current = onFiles
  useEffect(() => {
    const take = (event: Event, data: DataTransfer | null): void => {
      const files = [...(data?.files ?? [])]
      if (files.length === 0) return // text is dropped and pasted as usual
      event.preventDefault()
      latest.current(files)
    }
    const onDrop = (event: DragEvent): void => take(event, event.dataTransfer)
    const onPaste = (event: ClipboardEvent): void => take(event, event.clipboardData)
    const onDragOver = (event: DragEvent): void => event.preventDefault()
    addEventListener('drop', onDrop)
    addEventListener('dragover', onDragOver)
    addEventListener('paste', onPaste)
    return () => {
      removeEventListener('drop', onDrop)
      removeEventListener('dragover', onDragOver)
      removeEventListener('paste', onPaste)
    }
  }, [])
}

/** Media of the next question: read from files that are chosen, dropped or pasted. `onAdd` receives each medium, `onProblem` the error of a file. */
export const useMedia = (onAdd: (medium: Medium) => void, onProblem: (problem: string | undefined) => void) => {
  const [media, setMedia] = useState<readonly Medium[]>([])
  const addFiles = async (files: readonly File[]): Promise<void> => {
    onProblem(undefined)
    for (const file of files)
      try {
        const medium = await readMedium(file)
        setMedia((list) => [...list, medium])
        onAdd(medium)
      } catch (error) {
        onProblem(messageOf(error))
      }
  }
  useFiles((files) => void addFiles(files))
  return { media, setMedia, addFiles }
}
