import { useEffect, useRef, useState } from 'preact/hooks'
import { messageOf, streamChunks } from '../api-client.js'
import {
  type Answer,
  atEnd,
  type ChatSettings,
  chatBody,
  type Exchange,
  emptyAnswer,
  isOpen,
  type Medium,
  withChunk
} from '../exchange.js'

/** The conversation, and the functions that change it. */
export const useConversation = (settings: ChatSettings, key: string) => {
  const [exchanges, setExchanges] = useState<readonly Exchange[]>([])
  const running = useRef<AbortController | undefined>(undefined)
  const run = async (all: readonly Exchange[]): Promise<void> => {
    const controller = new AbortController()
    running.current = controller
    const { id } = all.at(-1)!
    const update = (change: (answer: Answer) => Answer): void =>
      setExchanges((list) =>
        list.map((exchange) => (exchange.id === id ? { ...exchange, answer: change(exchange.answer) } : exchange))
      )
    setExchanges(all)
    try {
      for await (const chunk of streamChunks(chatBody(all, settings), key, controller.signal))
        update((answer) => withChunk(answer, chunk, performance.now()))
      update(atEnd)
    } catch (error) {
      const isStopped = controller.signal.aborted
      update((answer) => ({ ...answer, ...(isStopped ? { status: 'stopped' } : { status: 'failed', error: messageOf(error) }) }))
    }
  }
  const stop = (): void => running.current?.abort()
  return {
    exchanges,
    isAnswering: exchanges.some(({ answer }) => isOpen(answer)),
    ask: (question: string, media: readonly Medium[]) =>
      run([...exchanges, { id: exchanges.length, question, media, answer: emptyAnswer(performance.now()) }]),
    retry: () => run([...exchanges.slice(0, -1), { ...exchanges.at(-1)!, answer: emptyAnswer(performance.now()) }]),
    stop,
    clear: () => {
      stop()
      setExchanges([])
    }
  }
}

/** Scrolls to a new question, and follows an answer whose end is in view. */
export const useFollow = (questions: number, answer: Answer | undefined): void => {
  const before = useRef({ questions, bottom: 0 })
  useEffect(() => {
    const { scrollHeight } = document.documentElement
    const isAtEnd = scrollY + innerHeight >= before.current.bottom - 40
    if (questions !== before.current.questions || isAtEnd) scrollTo(0, scrollHeight)
    before.current = { questions, bottom: scrollHeight }
  }, [questions, answer])
}

/** A sentence for screen readers at the beginning and at the end of an answer. */
export const statusText = (answer: Answer | undefined): string => {
  if (!answer) return ''
  if (isOpen(answer)) return 'The model answers.'
  return answer.status === 'failed' ? '' : `Answer ${answer.status}, ${answer.tokens.length} tokens: ${answer.text}`
}
