import ai.nasedge.example.PreprocessingTest

fun main() {
    PreprocessingTest().preprocessesTheGoldenExamplesAsInTraining()
    println("preprocessed as recorded")
}
